"""HDF5Data: batches of rows from HDF5 files, each top from the dataset of its name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context, Shape, at_least
from ..registry import register
from ..source import NumberedSource, Variation
from .buffers import uploaded
from .counter_random import Purpose, named_seed, permutation
from .hdf5_reader import read_rows, row_count, row_shape
from .lists import read_lines
from .shapes import positive
from .stamps import stamp

#: Numbers that distinguish what is shuffled.
_FILES, _ROWS = 0, 1


@dataclass(frozen=True, slots=True)
class _Turn:
    """A file in its turn: ``numbers`` are those of its rows, in the order in which they come."""

    epoch: int
    file: int
    numbers: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows ``taken`` of a file's turn in an epoch that go to ``places`` of a batch."""

    turn: _Turn
    epoch: int
    taken: slice
    places: slice

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Which rows of the file they are."""
        return self.turn.numbers[self.taken]


@register("HDF5Data")
class HDF5Data(NumberedSource):
    """Rows of the files that ``source`` lists, in order; batches span files and wrap at the end.

    The top ``data`` comes from the dataset ``data`` and has its shape with the batch size in
    front; all numbers become float32. ``shuffle`` gives the files a new order in each epoch, and
    the rows of a file each time it is read. As in Caffe there is no transform_param.
    """

    message_field = "hdf5_data_param"
    tops = at_least(1)

    def __init__(
        self,
        files: Sequence[str],
        datasets: Sequence[str],
        *,
        batch_size: int,
        shuffle: bool = False,
        name: str = "data",
    ) -> None:
        self._files = list(files)
        self._datasets = list(datasets)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._name = name
        self._shapes = [row_shape(self._files[0], dataset) for dataset in datasets]
        self.shapes: tuple[Shape, ...] = tuple((batch_size, *shape) for shape in self._shapes)
        self._epoch = self._file = self._row = 0
        #: How many rows each file has, as far as it was looked at.
        self._counts: dict[int, int] = {}
        self._turn: _Turn | None = None
        #: The rows of a turn, in its order.
        self._loaded: tuple[_Turn, list[NDArray[np.float32]]] | None = None
        self._keys: tuple[str, ...] = ()
        self._given_seed = 0
        #: Top -> how many classes its labels may name, and which other values are allowed.
        self._labels: dict[int, tuple[int, frozenset[int]]] = {}

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> HDF5Data:
        parameters = message.hdf5_data_param
        if message.HasField("transform_param"):
            raise LayerError("an HDF5Data layer does not transform its data", "transform_param")
        if not parameters.source:
            raise LayerError("must name a list of HDF5 files, got none", "hdf5_data_param.source")
        batch_size = positive(parameters.batch_size, "hdf5_data_param.batch_size")
        files = [name for line in read_lines(parameters.source) for name in line.split()]
        if not files:
            raise DataError(f"{parameters.source}: the list names no HDF5 files")
        return cls(
            files,
            list(message.top),
            batch_size=batch_size,
            shuffle=parameters.shuffle,
            name=message.name,
        )

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        tops = [np.empty(shape, np.float32) for shape in self.shapes]
        keys: list[str] = []
        for part in self._parts():
            for top, values in zip(tops, self._rows(part.turn), strict=True):
                top[part.places] = values[part.taken]
            keys += self._names(part)
        self._keys = tuple(keys)
        return tuple(uploaded(torch.from_numpy(top), device) for top in tops)

    def _names(self, part: _Part) -> list[str]:
        return [f"{self._files[part.turn.file]}:{number}" for number in part.numbers.tolist()]

    @property
    def last_keys(self) -> tuple[str, ...]:
        """File and row, counted from 0, of each record."""
        return self._keys

    def variation(self) -> Variation | None:
        return None

    def advance(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epochs, places = (np.empty(self._batch_size, np.int64) for _ in range(2))
        keys: list[str] = []
        for part in self._parts():
            epochs[part.places] = part.epoch
            places[part.places] = sum(map(self._count, range(part.turn.file))) + part.numbers
            keys += self._names(part)
        self._keys = tuple(keys)
        return epochs, places

    def sweep(self, device: torch.device, epoch: int = 0) -> Iterator[tuple[Tensor, ...]]:
        stored = HDF5Data(self._files, self._datasets, batch_size=self._batch_size, name=self._name)
        stored._labels = self._labels
        for _ in range(math.ceil((self.records or 0) / self._batch_size)):
            yield stored.next(device)

    def fingerprint(self) -> str:
        labels = sorted(
            (top, classes, sorted(ignored)) for top, (classes, ignored) in self._labels.items()
        )
        return repr(([stamp(file) for file in self._files], self._datasets, labels))

    def _parts(self) -> Iterator[_Part]:
        """The parts of the next batch; the position moves on behind each."""
        filled = 0
        while filled < self._batch_size:
            turn = self._current()
            if self._row >= len(turn.numbers):
                raise DataError(
                    f"{self._files[turn.file]}: has {len(turn.numbers)} rows; the run that is "
                    f"resumed had come to row {self._row}"
                )
            end = min(self._row + self._batch_size - filled, len(turn.numbers))
            count = end - self._row
            yield _Part(turn, self._epoch, slice(self._row, end), slice(filled, filled + count))
            filled += count
            self._row = end
            if end == len(turn.numbers):
                self._next_file()

    def _next_file(self) -> None:
        self._row = 0
        self._file += 1
        if self._file == len(self._files):
            self._epoch, self._file = self._epoch + 1, 0

    def _current(self) -> _Turn:
        """The file that is to be read now, and its rows in this epoch's order."""
        seed = named_seed(self._given_seed, self._name)
        file = self._file
        if self._shuffle:
            order = permutation(len(self._files), seed, Purpose.SHUFFLE, _FILES, self._epoch)
            file = int(order[self._file])
        # A single file that is not shuffled is read once and for all.
        epoch = self._epoch if self._shuffle else 0
        if self._turn is None or (self._turn.epoch, self._turn.file) != (epoch, file):
            count = self._count(file)
            if not count:
                raise DataError(f"{self._files[file]}: the datasets have no rows")
            numbers = np.arange(count)
            if self._shuffle:
                numbers = permutation(count, seed, Purpose.SHUFFLE, _ROWS, self._epoch, file)
            self._turn = _Turn(epoch, file, numbers)
        return self._turn

    def _rows(self, turn: _Turn) -> list[NDArray[np.float32]]:
        """The rows of the turn's file, in memory, in the order in which they come."""
        if self._loaded is None or self._loaded[0] is not turn:
            path = self._files[turn.file]
            rows = read_rows(path, self._datasets, self._shapes)
            if len(rows[0]) != len(turn.numbers):
                raise DataError(
                    f"{path}: has {len(rows[0])} rows now, but had {len(turn.numbers)} before"
                )
            self._check_labels(path, rows)
            if self._shuffle:
                rows = [values[turn.numbers] for values in rows]
            self._loaded = turn, rows
        return self._loaded[1]

    def _count(self, file: int) -> int:
        if file not in self._counts:
            self._counts[file] = row_count(self._files[file], self._datasets[0])
        return self._counts[file]

    def expect_labels(self, top: int, classes: int, ignored: frozenset[int]) -> None:
        self._labels[top] = (classes, ignored)
        self._loaded = None

    def _check_labels(self, file: str, rows: list[NDArray[np.float32]]) -> None:
        for top, (classes, ignored) in self._labels.items():
            labels = rows[top]
            good = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))
            for value in ignored:
                good |= labels == value
            if not good.all():
                place = np.argwhere(~good)[0]
                raise DataError(
                    f"{file}: row {place[0]} of dataset {self._datasets[top]!r} holds label "
                    f"{labels[tuple(place)]:g} (must be a whole number from 0 to {classes - 1} "
                    f"for {classes} classes)"
                )

    def seed(self, seed: int) -> None:
        self._given_seed = seed
        self._turn = self._loaded = None

    @property
    def records(self) -> int | None:
        """The rows of all files; each file is opened for its shape only."""
        return sum(map(self._count, range(len(self._files))))

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self._given_seed,
            "epoch": self._epoch,
            "file": self._file,
            "row": self._row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed(int(state["seed"]))
        self._epoch, self._file, self._row = (int(state[key]) for key in ("epoch", "file", "row"))

    def close(self) -> None:
        self._turn = self._loaded = None
        self._counts.clear()
