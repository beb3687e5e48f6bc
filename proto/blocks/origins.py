"""Where the parts of an expanded text stood: one source that knows many.

Expansion copies fields out of several texts, some of them many times. Each copy (a *frame*: one
use of a block, one turn of a repetition, one included file) gets a stretch of offsets of its own,
so that an offset alone tells the text, the place in it, and the places that led there.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import Location, Source
from .values import Variable, show_all

#: The title of a frame for one turn of a repetition.
TURN = "repeat"


@dataclass(slots=True)
class Frame:
    """A copy of parts of ``source`` at offsets from ``base``.

    ``caller`` is the offset of its use, ``title`` and ``values`` what was used and with what.
    """

    base: int
    source: Source
    caller: int | None = None
    title: str = ""
    values: Mapping[str, Variable] = field(default_factory=dict)

    @property
    def note(self) -> str:
        return f"{self.title} {show_all(self.values)}".strip()


@dataclass(frozen=True, slots=True)
class ExpandedSource(Source):
    """The main text and everything that was copied into it."""

    frames: list[Frame] = field(default_factory=list, compare=False)
    bases: list[int] = field(default_factory=list, compare=False)

    def add(self, source: Source, caller: int | None = None, title: str = "") -> Frame:
        """A new frame for copies out of ``source``."""
        base = 0
        if self.frames:
            latest = self.frames[-1]
            base = latest.base + len(latest.source.text) + 1
        frame = Frame(base, source, caller, title)
        self.frames.append(frame)
        self.bases.append(base)
        return frame

    def frame(self, offset: int) -> Frame:
        """The frame that ``offset`` belongs to."""
        return self.frames[bisect.bisect_right(self.bases, offset) - 1]

    def position(self, offset: int) -> tuple[int, int]:
        frame = self.frame(offset)
        return frame.source.position(offset - frame.base)

    def locate(self, offset: int, parent: Location | None = None, note: str = "") -> Location:
        frame = self.frame(offset)
        if parent is None and frame.caller is not None:
            parent = self.locate(frame.caller, note=frame.note)
        line, column = frame.source.position(offset - frame.base)
        return Location(frame.source, line, column, parent, note)
