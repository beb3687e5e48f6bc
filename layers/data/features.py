"""Features kept on disk: what the frozen layers of a net make of each record of its source."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.atomic import TEMPORARY_SUFFIX
from ...proto.errors import DataError, ResourceError
from ..base import Shape
from ..source import DataSource, NumberedSource
from .buffers import uploaded

_INDEX = "blobs.json"
_VERSION = 1


class Features:
    """Blobs of all records: for each name an array (rows, ...) of float32, mapped from a file.

    The record of number n in variant v has row v * records + n. ``notes`` are kept beside them.
    """

    def __init__(
        self, folder: Path, arrays: Mapping[str, NDArray[np.float32]], notes: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.arrays = dict(arrays)
        self.notes = dict(notes)

    @property
    def bytes(self) -> int:
        """What they take on disk."""
        return sum(array.nbytes for array in self.arrays.values())

    @classmethod
    def open(cls, folder: Path) -> Features | None:
        """The features in ``folder``, None if there is no such folder; DataError if it is damaged.

        A folder is there only if it is complete.
        """
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            if index["version"] != _VERSION:
                raise ValueError(f"version {index['version']}, this program reads {_VERSION}")
            notes = {str(name): str(text) for name, text in index["notes"].items()}
            arrays = {
                name: np.load(folder / file, mmap_mode="r") for name, file in index["files"].items()
            }
        except FileNotFoundError as error:
            if not folder.exists():
                return None
            raise _damaged(folder, error) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(folder, error) from None
        return cls(folder, arrays, notes)

    @classmethod
    @contextmanager
    def create(
        cls, folder: Path, shapes: Mapping[str, Shape], rows: int, notes: Mapping[str, str]
    ) -> Iterator[Features]:
        """Features to fill; ``folder`` appears, whole, when the block ends without an error.

        ``shapes`` are those of one record. ResourceError if the disk has no room for them.
        """
        temporary = folder.with_name(
            f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        )
        try:
            temporary.mkdir(parents=True)
            _check_room(temporary, shapes, rows)
            arrays = {
                name: open_memmap(temporary / f"{number}.npy", "w+", np.float32, (rows, *shape))
                for number, (name, shape) in enumerate(shapes.items())
            }
            yield cls(folder, arrays, notes)
            for array in arrays.values():
                array.flush()
            files = {name: f"{number}.npy" for number, name in enumerate(shapes)}
            index = json.dumps({"version": _VERSION, "files": files, "notes": dict(notes)})
            (temporary / _INDEX).write_text(index, encoding="utf-8")
            if not folder.exists():  # another run may have been quicker
                temporary.rename(folder)
        except OSError as error:
            raise ResourceError(f"{folder}: features cannot be kept there: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def write(self, row: int, blobs: Mapping[str, Tensor], count: int) -> None:
        """Set the rows from ``row`` on to the first ``count`` items of each blob."""
        for name, array in self.arrays.items():
            values = blobs[name][:count].detach().float().cpu().numpy()
            if values.shape[1:] != array.shape[1:]:
                raise DataError(
                    f"blob {name!r} is {list(values.shape[1:])} for one record and "
                    f"{list(array.shape[1:])} for others: features can be kept of one size only"
                )
            array[row : row + count] = values

    def take(self, rows: NDArray[np.int64], name: str) -> NDArray[np.float32]:
        """The blob called ``name`` of some rows, in memory of its own."""
        taken: NDArray[np.float32] = np.take(self.arrays[name], rows, axis=0)
        return taken


class StoredFeatures(DataSource):
    """Brings kept features in the order in which ``source`` would bring its records.

    A record of epoch e has the features of variant e mod ``variants``. Everything but the tops is
    that of ``source``: its position goes on where a run without features stopped, and back.
    """

    def __init__(
        self, source: NumberedSource, features: Features, names: tuple[str, ...], variants: int
    ) -> None:
        self.original = source
        self.features = features
        self._names = names
        self._variants = variants
        self._records = source.records or 0
        batch = source.shapes[0][0]
        self.shapes = tuple((batch, *features.arrays[name].shape[1:]) for name in names)

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        epochs, places = self.original.advance()
        rows = epochs % self._variants * self._records + places
        taken = (torch.from_numpy(self.features.take(rows, name)) for name in self._names)
        return tuple(uploaded(each, device) for each in taken)

    @property
    def records(self) -> int | None:
        return self._records

    @property
    def last_keys(self) -> tuple[str, ...]:
        return self.original.last_keys

    def preprocessing(self, blob: str) -> caffe_pb2.Preprocessing | None:
        return self.original.preprocessing(blob)

    def seed(self, seed: int) -> None:
        self.original.seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return self.original.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.original.load_state_dict(state)

    def close(self) -> None:
        self.original.close()


def _check_room(folder: Path, shapes: Mapping[str, Shape], rows: int) -> None:
    needed = rows * sum(4 * int(np.prod(shape)) for shape in shapes.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{folder.parent}: features of {rows:,} rows need {needed:,} bytes, {free:,} are free"
        )


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"{folder}: these kept features are damaged ({error}); delete the folder")
