"""Segments of layers that keep nothing for backward but their bottoms, and compute the rest again.

Chen et al. 2016, by torch's checkpoint. Statistics are counted once, and dropout draws the same.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...layers.batch_norm import BatchNorm
from ..steps import Step, run_steps
from .batch_norm import Normalisation
from .in_place import reuse_memory
from .readers import running, trace

AUTO = "AUTO"


class Segment:
    """Steps that run as one; in backward they run once more."""

    def __init__(self, steps: Sequence[Step], bottoms: Sequence[str], tops: Sequence[str]) -> None:
        self.steps = list(steps)
        self.bottoms = tuple(bottoms)
        self.tops = tuple(tops)
        layers = [s.layer.norm if isinstance(s.layer, Normalisation) else s.layer for s in steps]
        self.norms = [layer for layer in layers if isinstance(layer, BatchNorm)]

    def __call__(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled():
            return self.run(*bottoms)
        result: tuple[Tensor, ...] = checkpoint(
            self.run, *bottoms, use_reentrant=False, context_fn=self._contexts
        )
        return result

    def run(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """The tops of the segment."""
        blobs = dict(zip(self.bottoms, bottoms, strict=True))
        run_steps(self.steps, blobs)
        return tuple(blobs[name] for name in self.tops)

    def _contexts(self) -> tuple[Any, Any]:
        return contextlib.nullcontext(), self._without_statistics()

    @contextlib.contextmanager
    def _without_statistics(self) -> Iterator[None]:
        for norm in self.norms:
            norm.counting = False
        try:
            yield
        finally:
            for norm in self.norms:
                norm.counting = True


def recompute(
    steps: Sequence[Step], outputs: Collection[str], patterns: Sequence[str]
) -> list[Step]:
    """``steps`` with the layers that ``patterns`` name in segments."""
    chosen = _automatic(steps, outputs) if AUTO in patterns else _named(steps, patterns)
    flow = trace(steps, outputs)
    result: list[Step] = []
    for members in chosen:
        if isinstance(members, int):
            result.append(steps[members])
            continue
        inside = set(members)
        parts = [steps[index] for index in members]
        bottoms = dict.fromkeys(
            version.name
            for index in members
            for version in flow.bottoms[index]
            if version.writer not in inside
        )
        tops = dict.fromkeys(
            version.name
            for index in members
            for version in flow.tops[index]
            if version.final or any(reader not in inside for reader in version.readers)
        )
        dead = dict.fromkeys(n for part in parts for n in part.dead if n in bottoms)
        kept = [replace(p, dead=tuple(n for n in p.dead if n not in tops)) for p in parts]
        result.append(
            running(
                parts[0],
                Segment(reuse_memory(kept, tops), list(bottoms), list(tops)),
                bottoms=tuple(bottoms),
                tops=tuple(tops),
                in_place=frozenset(),
                detached=frozenset(),
                dead=tuple(name for name in dead if name not in tops),
                needs_backward=any(part.needs_backward for part in parts),
            )
        )
    return result


def _eligible(step: Step) -> bool:
    return not step.losses and not step.views and bool(step.tops) and step.needs_backward


def _named(steps: Sequence[Step], patterns: Sequence[str]) -> list[int | list[int]]:
    """Runs of neighbouring layers whose names match; other layers stand for themselves."""
    result: list[int | list[int]] = []
    for index, step in enumerate(steps):
        matches = any(fnmatch.fnmatchcase(step.name, pattern) for pattern in patterns)
        if not matches or not _eligible(step):
            result.append(index)
        elif result and isinstance(last := result[-1], list) and last[-1] == index - 1:
            last.append(index)
        else:
            result.append([index])
    return result


def _automatic(steps: Sequence[Step], outputs: Collection[str]) -> list[int | list[int]]:
    """Segments of about equal memory, as many as the square root of their possible ends.

    A segment may end where a single blob is alive; the last one is not computed twice, as backward
    starts right there.
    """
    narrow = _narrow_places(steps, outputs)
    total = sum(_elements(step) for step in steps)
    goal = total / max(1.0, math.sqrt(len(narrow)))
    result: list[int | list[int]] = []
    segment: list[int] = []
    filled = 0
    for index, step in enumerate(steps):
        filled += _elements(step)
        if not _eligible(step):
            result += [segment] if segment else []
            result.append(index)
            segment = []
            continue
        segment.append(index)
        if index in narrow and filled >= goal:
            result.append(segment)
            segment, filled = [], 0
    last = next((i for i in reversed(range(len(result))) if isinstance(result[i], list)), None)
    if segment:
        result += segment
    elif last is not None:
        members = result[last]
        assert isinstance(members, list)
        result[last : last + 1] = members
    return result


def _narrow_places(steps: Sequence[Step], outputs: Collection[str]) -> set[int]:
    """The steps after which one blob alone, besides those fed, is still to be read."""
    flow = trace(steps, outputs)
    open_versions: dict[int, int] = {}
    narrow = set()
    for index in range(len(steps)):
        for version in flow.tops[index]:
            if version.readers and not version.final:
                open_versions[id(version)] = max(version.readers)
        open_versions = {key: last for key, last in open_versions.items() if last > index}
        if len(open_versions) == 1:
            narrow.add(index)
    return narrow


def _elements(step: Step) -> int:
    return sum(math.prod(shape) for shape in step.top_shapes)
