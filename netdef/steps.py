"""The layers of a net in their places, ready to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from ..layers.base import Layer, Shape
from ..layers.source import DataSource
from .parameters import Tie
from .state import LayerSpec


@dataclass(slots=True)
class Step:
    """One layer in running order: what it consumes and produces, and what follows from that.

    ``detached`` are the indices of bottoms into which no gradient flows; ``losses`` maps the index
    of a top to its non-zero weight in the net's loss; ``dead`` are the blobs nobody needs after it;
    ``views`` are shared parameters that must be seen in another shape in every pass.
    """

    spec: LayerSpec
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    in_place: frozenset[int] = frozenset()
    detached: frozenset[int] = frozenset()
    losses: dict[int, float] = field(default_factory=dict)
    dead: tuple[str, ...] = ()
    needs_backward: bool = False
    views: tuple[Tie, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def type(self) -> str:
        return self.spec.message.type


@dataclass(slots=True)
class SourceStep:
    """One data source: the blobs it feeds."""

    spec: LayerSpec
    source: DataSource
    tops: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def type(self) -> str:
        return self.spec.message.type

    @property
    def top_shapes(self) -> tuple[Shape, ...]:
        return self.source.shapes


def run_steps(steps: Iterable[Step], blobs: dict[str, Tensor], keep: bool = False) -> list[Tensor]:
    """Run ``steps`` on ``blobs``, to which their tops are added; the weighted loss terms.

    Blobs that nobody needs any more are taken out, unless ``keep``.
    """
    loss_terms: list[Tensor] = []
    for step in steps:
        layer = step.layer
        for tie in step.views:
            tie.apply()
        bottoms = [blobs[name] for name in step.bottoms]
        for index in step.detached:
            bottoms[index] = bottoms[index].detach()
        result = layer(*bottoms)
        tops = (result,) if isinstance(result, Tensor) else result
        for name, top in zip(step.tops, tops, strict=True):
            blobs[name] = top
        for index, weight in step.losses.items():
            term = tops[index] if tops[index].dim() == 0 else tops[index].sum()
            loss_terms.append(term if weight == 1 else weight * term)
        if not keep:
            for name in step.dead:
                blobs.pop(name, None)
    return loss_terms
