"""A net in numbers, layer by layer, without allocating it: what `cortado check` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..layers.base import Shape
from .blueprint import Blueprint
from .memory import BYTES_PER_ELEMENT


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
    rows: dict[str, LayerSummary] = {}
    for source in plan.sources:
        rows[source.name] = LayerSummary(
            source.name,
            source.type,
            (),
            source.tops,
            source.top_shapes,
            0,
            0,
            sum(map(math.prod, source.top_shapes)) * BYTES_PER_ELEMENT,
            False,
        )
    for step in plan.steps:
        fresh = sum(
            math.prod(shape)
            for index, shape in enumerate(step.top_shapes)
            if index not in step.in_place
        )
        rows[step.name] = LayerSummary(
            step.name,
            step.type,
            step.bottoms,
            step.tops,
            step.top_shapes,
            owned.get(step.name, 0),
            step.layer.macs(step.bottom_shapes, step.top_shapes),
            fresh * BYTES_PER_ELEMENT,
            step.needs_backward,
        )
    return [rows[wire.name] for wire in plan.wires]
