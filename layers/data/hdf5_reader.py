"""Reading rows of datasets from HDF5 files; DataError for what cannot be one or does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ...proto.errors import DataError
from ..base import Shape


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


def row_shape(path: str, name: str) -> Shape:
    """The shape of a row of the dataset ``name``."""
    with _open(path) as file:
        return tuple(_dataset(file, path, name).shape[1:])


def row_count(path: str, name: str) -> int:
    """How many rows the dataset ``name`` has."""
    with _open(path) as file:
        return int(_dataset(file, path, name).shape[0])


def read_rows(
    path: str, names: Sequence[str], shapes: Sequence[Shape]
) -> list[NDArray[np.float32]]:
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
    return values
