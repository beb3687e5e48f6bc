"""The mean image of a database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto import caffe_pb2
from ...proto.atomic import write_atomically
from ...proto.errors import DataError
from .database import Database, open_database
from .entries import Entry, describe, read_entry
from .parallel import chunks, ordered_map

_CHUNK = 32


def compute_mean(
    database: str | Path,
    backend: int = caffe_pb2.DataParameter.LMDB,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """The mean of all images of a database, (channels, height, width), channels BGR.

    Raises DataError, naming the record, for one that cannot be read or has another size than the
    first. ``progress`` is told how many records were dealt with.
    """
    store = open_database(database, backend)
    try:
        total: NDArray[np.float64] | None = None
        count = 0
        work = partial(_sum, store)
        for part, number in ordered_map(work, chunks(store.records(), _CHUNK), threads):
            if total is not None and total.shape != part.shape:
                raise _different(store, "", part.shape, total.shape)
            total = part if total is None else total + part
            count += number
            if progress is not None:
                progress(number)
    finally:
        store.close()
    assert total is not None
    return total.astype(np.float32) / np.float32(count)


def _sum(store: Database, chunk: list[Entry]) -> tuple[NDArray[np.float64], int]:
    total: NDArray[np.float64] | None = None
    for key, value in chunk:
        try:
            picture, _ = read_entry(value)
        except DataError as error:
            raise DataError(f"{describe(store, key)}: {error}") from None
        pixels = picture.pixels.transpose(2, 0, 1) if picture.interleaved else picture.pixels
        if total is None:
            total = np.zeros(pixels.shape)
        elif total.shape != pixels.shape:
            raise _different(store, describe(store, key), pixels.shape, total.shape)
        total += pixels
    assert total is not None
    return total, len(chunk)


def write_mean(mean: NDArray[np.float32], path: str | Path) -> None:
    """Write a mean image as Caffe does: a binary BlobProto with the older four sizes."""
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.ravel().tolist())
    with write_atomically(path) as file:
        file.write(blob.SerializeToString())


def _different(
    store: Database, record: str, found: tuple[int, ...], first: tuple[int, ...]
) -> DataError:
    place = record or f"{store.path}"
    return DataError(
        f"{place}: an image is {found}, the first one {first} (channels, height, width); "
        "all must have one size"
    )
