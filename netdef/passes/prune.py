"""Dead branches: layers whose tops neither the loss nor any output needs (ends in Silence)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ..steps import Step
from .readers import trace

#: Layers that do more than compute their tops: statistics, files, random numbers, own code.
_WITH_EFFECTS = {"BatchNorm", "Dropout", "HDF5Output", "Python"}


def drop_unused(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """``steps`` without those that nothing needs."""
    flow = trace(steps, outputs)
    needed = [False] * len(steps)
    for index in reversed(range(len(steps))):
        step = steps[index]
        needed[index] = (
            bool(step.losses)
            or step.type in _WITH_EFFECTS
            or any(top.final or any(needed[r] for r in top.readers) for top in flow.tops[index])
        )
    if all(needed):
        return list(steps)
    return freed([step for step, keep in zip(steps, needed, strict=True) if keep], outputs)


def freed(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """Steps with ``dead`` found anew, after readers are gone."""
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        last.update(dict.fromkeys((*step.bottoms, *step.tops), index))
    return [
        replace(
            step,
            dead=tuple(n for n, at in last.items() if at == index and n not in outputs),
        )
        for index, step in enumerate(steps)
    ]
