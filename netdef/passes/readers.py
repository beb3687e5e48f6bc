"""Who reads and writes each version of a blob: what every pass must know first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..steps import Step


@dataclass(slots=True)
class Version:
    """A blob between two writes: the step that wrote it (None: fed) and those that read it.

    ``final`` marks what is in an output of the net at the end.
    """

    name: str
    writer: int | None
    readers: list[int] = field(default_factory=list)
    final: bool = False


@dataclass(slots=True)
class Flow:
    """The versions that each step reads and writes, by the step's index."""

    bottoms: list[list[Version]]
    tops: list[list[Version]]


def trace(steps: Sequence[Step], outputs: Collection[str]) -> Flow:
    """Follow every blob through ``steps``; a top of a known name starts a new version."""
    current: dict[str, Version] = {}
    flow = Flow([], [])
    for index, step in enumerate(steps):
        read = [current.setdefault(name, Version(name, None)) for name in step.bottoms]
        for version in read:
            version.readers.append(index)
        written = [Version(name, index) for name in step.tops]
        current.update(zip(step.tops, written, strict=True))
        flow.bottoms.append(read)
        flow.tops.append(written)
    for name in outputs:
        if name in current:
            current[name].final = True
    return flow


def only_reader(flow: Flow, index: int) -> int | None:
    """The one step that reads the only top of step ``index``, if nobody else sees that top."""
    if len(flow.tops[index]) != 1:
        return None
    top = flow.tops[index][0]
    return top.readers[0] if len(top.readers) == 1 and not top.final else None


def plain(step: Step) -> bool:
    """Whether a step does nothing beyond computing tops: no loss, no cut gradient, no view."""
    return not (step.losses or step.detached or step.views)


def running(step: Step, operation: Callable[..., Any], **changes: Any) -> Step:
    """``step`` with ``operation`` run in the place of its layer, and other ``changes``."""
    stand_in: Any = operation
    return replace(step, layer=stand_in, **changes)
