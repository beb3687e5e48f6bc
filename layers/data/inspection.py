"""Looking into a database: what it holds, what is broken in it, how its images look."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...proto.errors import DataError
from . import image as images
from .augment.base import resized
from .database import Database
from .datum import parse
from .entries import Entry, describe, read_entry
from .labels import Label
from .parallel import chunks, ordered_map
from .transform import Picture

_CHUNK = 32
Shape = tuple[int, int, int]


@dataclass(slots=True)
class Summary:
    """What a database holds.

    ``shapes`` are (channels, height, width); ``labels`` counts class numbers, None for records
    without one; ``vectors`` counts the lengths of label vectors. ``bad`` has a line for each record
    that cannot be read. ``mean`` and ``deviation`` are those of all values of each channel, empty
    where records differ in their channels.
    """

    records: int = 0
    encoded: int = 0
    floats: int = 0
    value_bytes: int = 0
    shapes: Counter[Shape] = field(default_factory=Counter)
    labels: Counter[int | None] = field(default_factory=Counter)
    vectors: Counter[int] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    _squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def mean(self) -> list[float]:
        """The mean of each channel."""
        return [] if self._mixed else (self._sums / np.maximum(1, self._counts)).tolist()

    @property
    def deviation(self) -> list[float]:
        """The standard deviation of each channel."""
        if self._mixed:
            return []
        counts = np.maximum(1, self._counts)
        spread = self._squares / counts - (self._sums / counts) ** 2
        return np.sqrt(np.maximum(0, spread)).tolist()

    @property
    def _mixed(self) -> bool:
        return len({shape[0] for shape in self.shapes}) != 1

    def add(self, other: Summary) -> None:
        """Count what ``other`` found as well."""
        self.records += other.records
        self.encoded += other.encoded
        self.floats += other.floats
        self.value_bytes += other.value_bytes
        self.shapes += other.shapes
        self.labels += other.labels
        self.vectors += other.vectors
        self.bad += other.bad
        self._counts = _padded_sum(self._counts, other._counts)
        self._sums = _padded_sum(self._sums, other._sums)
        self._squares = _padded_sum(self._squares, other._squares)

    def add_values(self, picture: Picture) -> None:
        """Count the values of an image for mean and deviation."""
        axes = (0, 1) if picture.interleaved else (1, 2)
        values = picture.pixels
        sums = values.sum(axis=axes, dtype=np.float64)
        squares = np.square(values, dtype=np.float64).sum(axis=axes)
        counts = np.full(len(sums), values.size // len(sums), np.int64)
        self._counts = _padded_sum(self._counts, counts)
        self._sums = _padded_sum(self._sums, sums)
        self._squares = _padded_sum(self._squares, squares)


def _padded_sum(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    if len(first) < len(second):
        first, second = second, first
    total = first.copy()
    total[: len(second)] += second
    return total


def examine(
    database: Database,
    *,
    classes: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Decode every record and say what there is; bad ones are listed, not raised.

    With ``classes`` labels outside [0, classes) are bad as well. ``progress`` is told how many
    records were dealt with.
    """
    total = Summary()
    work = partial(_examine_chunk, database, classes)
    for part in ordered_map(work, chunks(database.records(), _CHUNK), threads):
        total.add(part)
        if progress is not None:
            progress(part.records)
    return total


def _examine_chunk(database: Database, classes: int | None, chunk: list[Entry]) -> Summary:
    found = Summary()
    for key, value in chunk:
        found.records += 1
        found.value_bytes += len(value)
        try:
            record = parse(value)
            found.encoded += record.encoded
            found.floats += record.float_data is not None
            picture, label = read_entry(value)
            _count_label(found, label, classes)
        except DataError as error:
            found.bad.append(f"{describe(database, key)}: {error}")
            continue
        found.shapes[picture.shape] += 1
        found.add_values(picture)
    return found


def _count_label(found: Summary, label: Label, classes: int | None) -> None:
    if isinstance(label, np.ndarray):
        found.vectors[label.size] += 1
        return
    number = None if label is None else int(label)
    found.labels[number] += 1
    if classes is not None and (number is None or not 0 <= number < classes):
        what = "no label" if number is None else f"label {number}"
        raise DataError(f"it has {what} (must be from 0 to {classes - 1})")


def size_on_disk(path: str | Path) -> int:
    """Bytes that the files of a database take; holes in sparse files do not count."""
    top = Path(path)
    files = [top] if top.is_file() else [each for each in top.iterdir() if each.is_file()]
    return sum(os.stat(each).st_blocks * 512 for each in files)


def contact_sheet(database: Database, count: int = 64, tile: int = 96) -> NDArray[np.uint8]:
    """A picture of ``count`` records spread evenly over a database, with their labels.

    BGR, rows of equal length. Bad records are left out; values that are no bytes are stretched to
    0..255. DataError if no record can be shown.
    """
    cells = [_cell(picture, label, tile) for picture, label in _spread(database, count)]
    if not cells:
        raise DataError(f"{database.path}: none of its records can be shown")
    columns = int(np.ceil(np.sqrt(len(cells))))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.vstack(rows)


def _spread(database: Database, count: int) -> Iterator[tuple[Picture, Label]]:
    """About ``count`` records at even distances."""
    step = max(1, len(database) // count)
    for _, value in islice(database.records(), 0, step * count, step):
        try:
            yield read_entry(value)
        except DataError:
            continue


_CAPTION = 14


def _cell(picture: Picture, label: Label, tile: int) -> NDArray[np.uint8]:
    image = shown(picture)
    height, width = image.shape[:2]
    scale = (tile - 4) / max(height, width)
    image = resized(image, max(1, round(height * scale)), max(1, round(width * scale)))
    cell = np.full((tile + _CAPTION, tile, 3), 255, np.uint8)
    top, left = (tile - image.shape[0]) // 2, (tile - image.shape[1]) // 2
    cell[top : top + image.shape[0], left : left + image.shape[1]] = image
    text = "" if label is None else str(label) if not isinstance(label, np.ndarray) else "..."
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(cell, text, (4, tile + _CAPTION - 4), font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return cell


def shown(picture: Picture) -> NDArray[np.uint8]:
    """An image as three channels of bytes, whatever it was."""
    image = picture.with_channels_last()
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    channels = image.shape[2]
    return image[:, :, :3] if channels >= 3 else np.repeat(image[:, :, :1], 3, axis=2)


def export(
    database: Database, folder: str | Path, progress: Callable[[int], None] | None = None
) -> tuple[int, list[str]]:
    """Write every record as an image into ``folder``/<label>/, and a list.txt as Caffe reads it.

    Encoded records keep their bytes, others become PNG. Gives the number of images, and a line for
    each record that has none. The folder must be new or empty.
    """
    top = Path(folder)
    top.mkdir(parents=True, exist_ok=True)
    if any(top.iterdir()):
        raise DataError(f"{folder}: must be an empty folder")
    bad: list[str] = []
    count = 0
    with open(top / "list.txt", "w", encoding="utf-8") as listing:
        for number, (key, value) in enumerate(database.records()):
            try:
                content, ending, label = _as_file(value)
            except DataError as error:
                bad.append(f"{describe(database, key)}: {error}")
                continue
            name = Path(f"{label}") / f"{number:08d}.{ending}"
            (top / name.parent).mkdir(exist_ok=True)
            (top / name).write_bytes(content)
            listing.write(f"{name.as_posix()} {label}\n")
            count += 1
            if progress is not None:
                progress(1)
    return count, bad


def _as_file(value: memoryview) -> tuple[bytes, str, int]:
    """Content and ending of an image file for a record, and its label (0 without one)."""
    record = parse(value)
    picture, label = read_entry(value)
    number = 0 if label is None or isinstance(label, np.ndarray) else int(label)
    if record.encoded:
        content = bytes(record.data)
        return content, images.ending_of(content), number
    if picture.pixels.dtype != np.uint8 or picture.shape[0] not in (1, 3, 4):
        raise DataError(f"{picture.shape[0]} channels of {picture.pixels.dtype} are no image")
    _, encoded = cv2.imencode(".png", picture.with_channels_last())
    return encoded.tobytes(), "png", number
