"""Which layers and bottoms gradients pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .steps import Step


def mark(steps: Sequence[Step], fed: Iterable[str], force: bool) -> None:
    """Set ``detached`` and ``needs_backward`` of every step.

    A layer needs backward if it lies between a parameter that learns and a loss, or between
    anything and the end of the net under `force_backward`; a bottom with `propagate_down: false`
    is cut off. ``fed`` are the blobs that come from outside.
    """
    carries = dict.fromkeys(fed, force)
    for step in steps:
        _mark_upwards(step, carries, force)
    wanted: set[str] = set()
    for step in reversed(steps):
        reached = force or bool(step.losses) or not wanted.isdisjoint(step.tops)
        step.needs_backward = step.needs_backward and reached
        wanted.difference_update(step.tops)
        if step.needs_backward:
            wanted.update(
                blob for index, blob in enumerate(step.bottoms) if index not in step.detached
            )


def _mark_upwards(step: Step, carries: dict[str, bool], force: bool) -> None:
    """Mark ``step`` from its bottoms; ``carries`` says which blobs have a gradient to pass on."""
    given = step.spec.message.propagate_down
    passes = [
        carries[blob] and step.layer.differentiable and (force or not given or given[index])
        for index, blob in enumerate(step.bottoms)
    ]
    step.detached = frozenset(
        index for index, blob in enumerate(step.bottoms) if carries[blob] and not passes[index]
    )
    learns = any(parameter.requires_grad for parameter in step.layer.parameters())
    step.needs_backward = learns or any(passes)
    for top in step.tops:
        carries[top] = step.needs_backward and step.layer.differentiable
