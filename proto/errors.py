"""The errors that Cortado raises, and how they name the place in a file that is at fault.

Every error a user can cause is a :class:`CortadoError`; its ``exit_code`` is what the command line
returns. A prototxt's faults are collected as :class:`Fault` objects, each with the
:class:`Location` that the text reader remembered, and reported together by one
:class:`ConfigError`.
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: How much of a long line an error shows: characters in all, and before the place at fault.
EXCERPT_WIDTH = 160
EXCERPT_BEFORE = 100


class CortadoError(Exception):
    """Base of all errors that are reported as one clear message instead of a traceback."""

    exit_code = 1


class DataError(CortadoError):
    """A database, image, list or mean file is missing, broken or does not fit the net."""

    exit_code = 3


class SnapshotError(CortadoError):
    """A snapshot or weights file is missing, broken, or does not fit the net or solver."""

    exit_code = 4


class WeightsError(SnapshotError):
    """Weights do not fit the net: other shapes, other counts, or nothing in common."""


class ResourceError(CortadoError):
    """Not enough memory or disk, or a device that is not there."""

    exit_code = 5


class DistributedError(CortadoError):
    """One of several cooperating processes failed."""

    exit_code = 6


class NumericError(CortadoError):
    """NaN or infinity where a finite number was needed."""

    exit_code = 7


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read: its name (usually the path) and its content."""

    name: str
    text: str
    _starts: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def _line_starts(self) -> list[int]:
        """The offset at which each line begins, found at the first question and then kept."""
        if not self._starts:
            self._starts.append(0)
            self._starts.extend(match.end() for match in re.finditer("\n", self.text))
        return self._starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of the character at ``offset``."""
        starts = self._line_starts()
        line = bisect.bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def locate(self, offset: int, parent: Location | None = None) -> Location:
        """The location of the character at ``offset``."""
        return Location(self, *self.position(offset), parent)

    def line(self, number: int) -> str:
        """The text of line ``number`` (from 1), without its end."""
        starts = self._line_starts()
        if not 0 < number <= len(starts):
            return ""
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a source: line and column count from 1.

    ``parent`` is the place that led here (the use of a block, the include of a file); ``note``
    says how this place was used: the block, and the values it was given.
    """

    source: Source
    line: int
    column: int
    parent: Location | None = None
    note: str = ""

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """The line and a caret under the column; tabs are kept so that the caret stays in place.

        Of a long line only the neighbourhood of the column is shown, and characters that cannot be
        printed (bytes that are not UTF-8, control codes) become question marks.
        """
        text = self.source.line(self.line)
        first = max(0, self.column - 1 - EXCERPT_BEFORE)
        text = text[first : first + EXCERPT_WIDTH]
        text = "".join(c if c == "\t" or c.isprintable() else "?" for c in text)
        lead = "".join("\t" if c == "\t" else " " for c in text[: self.column - 1 - first])
        return f"    {text}\n    {lead}^"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a configuration, where it is, and what else is involved."""

    message: str
    location: Location | None = None
    related: tuple[tuple[str, Location], ...] = field(default=())

    @property
    def place(self) -> tuple[str, int, int]:
        """What faults are sorted by: file, line and column."""
        where = self.location
        return (where.source.name, where.line, where.column) if where else ("", 0, 0)

    def __str__(self) -> str:
        lines = [f"{self.location}: {self.message}" if self.location else self.message]
        place = self.location
        if place is not None:
            lines.append(place.excerpt())
            while place.parent is not None:
                place = place.parent
                how = f" ({place.note})" if place.note else ""
                lines += [f"  used at {place}{how}", place.excerpt()]
        for note, where in self.related:
            lines += [f"  {where}: {note}", where.excerpt()]
        return "\n".join(lines)


class ConfigError(CortadoError):
    """A net or solver definition is wrong; ``faults`` lists everything found.

    ``partial`` is the Document without the fields at fault, where the text could be understood as
    a whole: enough to look for further faults and report them together.
    """

    exit_code = 2
    partial: Any = None

    def __init__(self, faults: Iterable[Fault] | Fault | str) -> None:
        if isinstance(faults, str):
            faults = Fault(faults)
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class LayerError(ValueError):
    """Raised inside a layer about its own message; the net adds the layer's place in its file.

    ``field`` is the dotted path of the field at fault inside the LayerParameter, for example
    ``"convolution_param.kernel_size"``; empty when no single field is.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known spelling closest to ``word``, or an empty string."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""
