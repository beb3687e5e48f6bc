"""List files: one image path and label, or one file name, per line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...proto.errors import DataError
from .image import read_bytes

_INTEGER = re.compile(r"\s*([+-]?\d+)")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """A line of an image list: its number (from 1), the path as written, and the label."""

    line: int
    path: str
    label: int


def read_lines(path: str | Path) -> list[str]:
    """The lines of a list file; a byte-order mark and CRLF are taken off.

    Bytes that are no UTF-8 are kept as file names have them (surrogate escapes).
    """
    text = read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def read_image_list(path: str | Path) -> list[ListedImage]:
    """The images of a list, "PATH LABEL" a line, parted at the last space as in Caffe.

    As in Caffe a label that is no number counts as 0. DataError, naming the line, for a line
    without a label; and for a list without lines. Blank lines are passed over.
    """
    images = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, space, label = line.rstrip(" \t").rpartition(" ")
        if not space or not name.strip():
            raise DataError(f"{path}:{number}: must be 'PATH LABEL', got {_shown(line)!r}")
        found = _INTEGER.match(label)
        images.append(ListedImage(number, name, int(found[1]) if found else 0))
    if not images:
        raise DataError(f"{path}: the list has no images")
    return images


def _shown(line: str) -> str:
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
