"""Decoding images from memory, with the checks that untrusted files need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...proto.errors import DataError

#: Larger images are refused from their header: decoding takes 3 bytes a pixel.
MAX_PIXELS = 2**27
#: A progressive JPEG of ordinary encoders has about ten scans; each costs a pass over the image.
MAX_SCANS = 200

NATIVE = cv2.IMREAD_UNCHANGED
COLOR = cv2.IMREAD_COLOR
GRAY = cv2.IMREAD_GRAYSCALE

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset(range(0xD0, 0xD8)) | {0x01, 0xFF}
_PROGRESSIVE = 0xC2


def decode(data: memoryview | bytes, mode: int = NATIVE) -> NDArray[Any]:
    """The image as (height, width, channels), channels BGR as in OpenCV.

    ``mode`` is NATIVE (channels as stored), COLOR or GRAY. Raises DataError for what is no image,
    is cut short, is too large (:data:`MAX_PIXELS`), or does not have 8 bits a channel.
    """
    if not len(data):
        raise DataError("the image is empty (0 bytes)")
    check_header(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        raise DataError(f"the image cannot be decoded: {error.err}") from None
    if image is None:
        raise DataError(f"the {len(data):,} bytes cannot be decoded as an image")
    if image.dtype != np.uint8:
        raise DataError(f"images must have 8 bits a channel, got {image.dtype}")
    return image if image.ndim == 3 else image[:, :, np.newaxis]


def read(path: str | Path, mode: int = COLOR) -> NDArray[Any]:
    """The image in a file; DataError naming the file if there is none in it."""
    return decode_file(read_bytes(path), path, mode)


def decode_file(data: bytes, path: str | Path, mode: int = COLOR) -> NDArray[Any]:
    """:func:`decode` with the file named in the error."""
    try:
        return decode(data, mode)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; DataError naming it if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def planes(image: NDArray[Any]) -> NDArray[Any]:
    """(height, width, channels) as (channels, height, width), copied."""
    found = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(found))
    return found


def check_header(data: memoryview | bytes) -> None:
    """Refuse images whose header promises more than :data:`MAX_PIXELS` or too many scans."""
    size = header_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"an image of {size[0]:,}x{size[1]:,} pixels is refused from its header "
            f"(at most {MAX_PIXELS:,} pixels)"
        )


def header_size(data: memoryview | bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG, JPEG, BMP or GIF; None for other content."""
    lead = bytes(data[:32])
    if lead[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if lead[:8] == b"\x89PNG\r\n\x1a\n" and len(lead) >= 24:
        return int.from_bytes(lead[16:20], "big"), int.from_bytes(lead[20:24], "big")
    if lead[:2] == b"BM" and len(lead) >= 26:
        width = int.from_bytes(lead[18:22], "little", signed=True)
        height = int.from_bytes(lead[22:26], "little", signed=True)
        return abs(width), abs(height)
    if lead[:4] == b"GIF8" and len(lead) >= 10:
        return int.from_bytes(lead[6:8], "little"), int.from_bytes(lead[8:10], "little")
    return None


_ENDINGS = (
    (b"\xff\xd8", "jpg"),
    (b"\x89PNG", "png"),
    (b"BM", "bmp"),
    (b"GIF8", "gif"),
    (b"RIFF", "webp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


def ending_of(data: memoryview | bytes) -> str:
    """The usual ending of a file with this content, without the dot; "img" if it is not known."""
    lead = bytes(data[:4])
    return next((ending for magic, ending in _ENDINGS if lead.startswith(magic)), "img")


def _jpeg_size(data: memoryview | bytes) -> tuple[int, int] | None:
    position = 2
    end = len(data)
    while position + 9 < end:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker in _NO_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            _check_scans(data, position, progressive=marker == _PROGRESSIVE)
            height = data[position + 5] << 8 | data[position + 6]
            return data[position + 7] << 8 | data[position + 8], height
        position += 2 + (data[position + 2] << 8 | data[position + 3])
    return None


def _check_scans(data: memoryview | bytes, start: int, progressive: bool) -> None:
    """Refuse a JPEG that was cut off, or has too many scans; its frame begins at ``start``."""
    # In compressed data 0xFF is always followed by 0, so that these patterns are real markers.
    if bytes(data[-2:]) != b"\xff\xd9" and bytes(data).find(b"\xff\xd9", start) < 0:
        raise DataError(f"the JPEG of {len(data):,} bytes is truncated, it has no end marker")
    scans = bytes(data).count(b"\xff\xda") if progressive else 1
    if scans > MAX_SCANS:
        raise DataError(f"a progressive JPEG of {scans:,} scans is refused (at most {MAX_SCANS})")
