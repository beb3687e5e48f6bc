"""HDF5Data: batches of rows from HDF5 files, each top from the dataset of its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context, Shape, at_least
from ..registry import register
from ..source import DataSource
from .buffers import uploaded
from .counter_random import Purpose, named_seed, permutation
from .lists import read_lines
from .shapes import positive

#: Numbers that distinguish what is shuffled.
_FILES, _ROWS = 0, 1


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file in memory: ``numbers`` says which row of the file each of ``rows`` is."""

    turn: int
    file: int
    path: str
    numbers: NDArray[np.int64]
    rows: list[NDArray[np.float32]]


@register("HDF5Data")
class HDF5Data(DataSource):
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
        self._shapes = [_row_shape(self._files[0], dataset) for dataset in datasets]
        self.shapes: tuple[Shape, ...] = tuple((batch_size, *shape) for shape in self._shapes)
        self._epoch = self._file = self._row = 0
        self._loaded: _Loaded | None = None
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
        while len(keys) < self._batch_size:
            loaded, filled = self._current(), len(keys)
            part = slice(self._row, self._row + self._batch_size - filled)
            numbers = loaded.numbers[part].tolist()
            keys += [f"{loaded.path}:{number}" for number in numbers]
            for top, values in zip(tops, loaded.rows, strict=True):
                top[filled : len(keys)] = values[part]
            self._row += len(numbers)
            if self._row == len(loaded.numbers):
                self._next_file()
        self._keys = tuple(keys)
        return tuple(uploaded(torch.from_numpy(top), device) for top in tops)

    @property
    def last_keys(self) -> tuple[str, ...]:
        """File and row, counted from 0, of each record."""
        return self._keys

    def _next_file(self) -> None:
        self._row = 0
        self._file += 1
        if self._file == len(self._files):
            self._epoch, self._file = self._epoch + 1, 0

    def _current(self) -> _Loaded:
        """The file that is to be read now, its rows in this epoch's order."""
        seed = named_seed(self._given_seed, self._name)
        number = self._file
        if self._shuffle:
            order = permutation(len(self._files), seed, Purpose.SHUFFLE, _FILES, self._epoch)
            number = int(order[self._file])
        # A single file that is not shuffled is read once and for all.
        turn = self._epoch if self._shuffle else 0
        if self._loaded is None or (self._loaded.turn, self._loaded.file) != (turn, number):
            path = self._files[number]
            rows = _read(path, self._datasets, self._shapes)
            self._check_labels(path, rows)
            numbers = np.arange(len(rows[0]))
            if self._shuffle:
                counters = (Purpose.SHUFFLE, _ROWS, self._epoch, number)
                numbers = permutation(len(rows[0]), seed, *counters)
                rows = [values[numbers] for values in rows]
            self._loaded = _Loaded(turn, number, path, numbers, rows)
        return self._loaded

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
        self._loaded = None

    @property
    def records(self) -> int | None:
        """The rows of all files; each file is opened for its shape only."""
        return sum(_row_count(name, self._datasets[0]) for name in self._files)

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
        self._loaded = None


def _open(path: str) -> h5py.File:
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5: {error}") from None


def _dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        names = ", ".join(sorted(file)) or "nothing"
        raise DataError(
            f"{path}: there is no dataset {name!r} for the top of that name; it has {names}"
        )
    if found.dtype.kind not in "fiub":
        raise DataError(f"{path}: dataset {name!r} must hold numbers, got {found.dtype}")
    if found.ndim == 0:
        raise DataError(f"{path}: dataset {name!r} must have at least one axis, got a scalar")
    return found


def _row_shape(path: str, name: str) -> Shape:
    with _open(path) as file:
        return tuple(_dataset(file, path, name).shape[1:])


def _row_count(path: str, name: str) -> int:
    with _open(path) as file:
        return int(_dataset(file, path, name).shape[0])


def _read(path: str, names: Sequence[str], shapes: Sequence[Shape]) -> list[NDArray[np.float32]]:
    """The datasets of a file as float32; DataError if they do not fit each other or the tops."""
    values: list[NDArray[np.float32]] = []
    with _open(path) as file:
        for name, shape in zip(names, shapes, strict=True):
            dataset = _dataset(file, path, name)
            if dataset.shape[1:] != shape:
                raise DataError(
                    f"{path}: rows of dataset {name!r} are {list(dataset.shape[1:])}, those of the "
                    f"first file {list(shape)}"
                )
            if dataset.shape[0] != len(values[0] if values else dataset):
                raise DataError(
                    f"{path}: dataset {name!r} has {dataset.shape[0]} rows, "
                    f"{names[0]!r} has {len(values[0])}"
                )
            values.append(np.asarray(dataset, np.float32))
    if not len(values[0]):
        raise DataError(f"{path}: the datasets have no rows")
    return values
