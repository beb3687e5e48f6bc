"""Labels of samples: numbers, vectors, what is allowed, and files that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...proto.errors import DataError
from .lists import read_lines

#: A class number, several labels or a vector, or None where a sample has none.
Label = int | float | NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Labels:
    """Which labels are allowed, and how they are delivered.

    Without ``num_classes`` every number is allowed. ``shape`` is that of one delivered label: () or
    (values,). With ``one_hot`` a number becomes the vector that is 1 at its place.
    """

    num_classes: int | None = None
    ignored: frozenset[int] = frozenset()
    shape: tuple[int, ...] = ()
    one_hot: bool = False

    def check(self, label: Label) -> float | NDArray[np.float32]:
        """The label as delivered; DataError if it is not allowed. A missing one counts as 0."""
        if isinstance(label, np.ndarray):
            if label.shape != self.shape:
                raise DataError(
                    f"it has {label.size} labels, must have {_count(self.shape)} like the first"
                )
            return label
        if self.shape and not self.one_hot:
            raise DataError(f"it has one label, must have {_count(self.shape)} like the first")
        classes = self.shape[0] if self.one_hot else self.num_classes
        if classes is not None and label not in self.ignored:
            if label is None:
                raise DataError(f"it has no label (must be from 0 to {classes - 1})")
            if not 0 <= label < classes:
                raise DataError(
                    f"label {label:g} is out of range (must be from 0 to {classes - 1} "
                    f"for {classes} classes)"
                )
        if not self.one_hot:
            return float(label or 0)
        vector = np.zeros(self.shape, np.float32)
        if label not in self.ignored:
            vector[int(label or 0)] = 1.0
        return vector


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


class LabelFile:
    """Labels by key, from a text file: "KEY VALUE ..." a line.

    Keys that have spaces end at a tab. Every line must have as many values. DataError, naming the
    line, for what cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._rows: dict[bytes, int] = {}
        rows: list[list[float]] = []
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            key, values = self._parse(number, line)
            if rows and len(values) != len(rows[0]):
                raise DataError(
                    f"{path}:{number}: has {len(values)} values, the first line {len(rows[0])}"
                )
            if key in self._rows:
                raise DataError(f"{path}:{number}: the key {key!r} is there twice")
            self._rows[key] = len(rows)
            rows.append(values)
        if not rows:
            raise DataError(f"{path}: the file has no labels")
        self._values = np.array(rows, np.float32)

    def _parse(self, number: int, line: str) -> tuple[bytes, list[float]]:
        key, tab, rest = line.partition("\t")
        if not tab:
            key, _, rest = line.strip().partition(" ")
        try:
            values = [float(each) for each in rest.replace("\t", " ").replace(",", " ").split()]
        except ValueError:
            values = []
        if not key or not values:
            raise DataError(f"{self.path}:{number}: must be 'KEY VALUE ...', got {line!r}")
        return key.encode("utf-8", "surrogateescape"), values

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: memoryview | bytes) -> Label:
        """The value or vector of a record; DataError if the file has none."""
        row = self._rows.get(bytes(key))
        if row is None:
            raise DataError(f"{self.path} has no label for it")
        values: NDArray[np.float32] = self._values[row]
        return float(values[0]) if values.size == 1 else values


def class_weights(histogram: dict[int, int]) -> dict[int, float]:
    """A weight for each class that makes all count the same: total / (classes x its records)."""
    total = sum(histogram.values())
    return {label: total / (len(histogram) * count) for label, count in histogram.items()}
