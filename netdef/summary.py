"""A net in numbers, layer by layer, without allocating it: what `cortado check` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..layers.base import Shape
from .blueprint import Blueprint
from .memory import BYTES_PER_ELEMENT
from .steps import SourceStep, Step


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer: its connections, and for one forward pass its size and work.

    ``parameters`` counts the numbers that the layer owns (shared ones only with their owner),
    ``macs`` multiply-accumulate operations, ``bytes`` the memory of its own tops.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    top_shapes: tuple[Shape, ...]
    parameters: int
    macs: int
    bytes: int
    needs_backward: bool


def summarize(plan: Blueprint) -> list[LayerSummary]:
    """One summary per layer and data source, in running order."""
    owned: dict[str, int] = {}
    for param in plan.params:
        owned[param.layer] = owned.get(param.layer, 0) + param.tensor.numel()
    return [
        _of_step(each, owned.get(each.name, 0)) if isinstance(each, Step) else _of_source(each)
        for each in plan.order
    ]


def _of_source(source: SourceStep) -> LayerSummary:
    elements = sum(map(math.prod, source.top_shapes))
    return LayerSummary(
        source.name, source.type, (), source.tops, source.top_shapes,
        parameters=0, macs=0, bytes=elements * BYTES_PER_ELEMENT, needs_backward=False,
    )  # fmt: skip


def _of_step(step: Step, parameters: int) -> LayerSummary:
    fresh = sum(
        math.prod(shape) for i, shape in enumerate(step.top_shapes) if i not in step.in_place
    )
    return LayerSummary(
        step.name, step.type, step.bottoms, step.tops, step.top_shapes,
        parameters=parameters,
        macs=step.layer.macs(step.bottom_shapes, step.top_shapes),
        bytes=fresh * BYTES_PER_ELEMENT,
        needs_backward=step.needs_backward,
    )  # fmt: skip
