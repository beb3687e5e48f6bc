"""The file formats in which public image sets come."""

from __future__ import annotations

import gzip
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import DataError

#: A label and its image, uint8 of shape (channels, height, width).
Labelled = tuple[int, NDArray[np.uint8]]

_UINT8 = 8


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in a gzipped (or plain) idx file of bytes, as MNIST has them.

    The header is two zero bytes, the type of the elements, the number of axes, and each axis as a
    big-endian 32-bit number.
    """
    raw = path.read_bytes()
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: broken gzip file: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8 or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path}: no idx file of bytes (it begins with {data[:4].hex(' ')})")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape))
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path}: its header says {shape}, but it holds {values.size} bytes")
    return values.reshape(shape)


def mnist_images(images: Path, labels: Path) -> Iterator[Labelled]:
    """The images of a pair of idx files, grey, with their labels."""
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
        raise DataError(f"{images}: {pixels.shape} images do not go with {classes.shape} labels")
    for label, image in zip(classes, pixels, strict=True):
        yield int(label), image[None]


CIFAR_SHAPE = (3, 32, 32)
_CIFAR_PIXELS = 3 * 32 * 32


def cifar_images(archive: Path, members: list[str], label_bytes: int = 1) -> Iterator[Labelled]:
    """The images in members of a binary archive of CIFAR: label bytes, then RGB planes.

    Of several label bytes the last counts: in CIFAR-100 it is the fine label. Nothing is unpacked
    to disk. The planes stay in the file's order, as in Caffe's own databases of CIFAR-10, although
    other colour images there are BGR.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            for name in members:
                file = tar.extractfile(name)
                if file is None:
                    raise DataError(f"{archive}: {name} is no file")
                yield from _cifar_records(file.read(), label_bytes, f"{archive}: {name}")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive}: broken archive: {error}") from None
    except KeyError:
        raise DataError(f"{archive}: has no member {name}") from None


def _cifar_records(data: bytes, label_bytes: int, name: str) -> Iterator[Labelled]:
    size = label_bytes + _CIFAR_PIXELS
    if not data or len(data) % size:
        raise DataError(f"{name}: {len(data)} bytes are no multiple of {size}")
    for record in np.frombuffer(data, np.uint8).reshape(-1, size):
        yield int(record[label_bytes - 1]), record[label_bytes:].reshape(CIFAR_SHAPE)
