"""BatchReindex and Filter: choosing items of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, at_least, exactly
from .registry import register


@register("BatchReindex")
class BatchReindex(Layer):
    """y[i] = x[index[i]]: items of the first bottom, by the whole numbers of the second.

    bottoms ``(N, ...)`` and ``(M)`` -> top ``(M, ...)``. Indices are floats from 0 to N - 1; they
    may repeat, and gradients then add up. They get none themselves.

    Torch: ``torch.index_select`` on axis 0.
    """

    bottoms = exactly(2)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        self.top_shapes(x.shape, index.shape)
        return x.index_select(0, index.long())

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, index = bottoms
        if not x or len(index) != 1:
            raise LayerError(f"the indices must have 1 axis, got shape {tuple(index)}", "bottom.1")
        return [(*index, *x[1:])]


@register("Filter")
class Filter(Layer):
    """The items of each bottom where the last bottom, the selector, is not 0.

    bottoms ``(N, ...)`` ... and ``(N)`` or ``(N, 1, ...)`` -> one top for each but the last, with
    as many items as are selected (N until data is known). How many these are must reach the host,
    so this layer waits for the device and cannot be traced whole by torch.compile.

    Torch: a mask as index, ``x[mask]``.
    """

    bottoms = at_least(2)
    tops = at_least(1)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Filter:
        if context.num_tops != len(context.shapes) - 1:
            raise LayerError(
                f"there must be one top for each bottom but the selector "
                f"({len(context.shapes) - 1}), got {context.num_tops}",
                "top",
            )
        return cls()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.top_shapes(*(x.shape for x in bottoms))
        *items, selector = bottoms
        if selector.is_meta:
            return tuple(x.clone() for x in items)
        chosen = selector.reshape(-1).nonzero().reshape(-1)
        return tuple(x.index_select(0, chosen) for x in items)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        *items, selector = bottoms
        if not selector or prod(selector[1:]) != 1:
            raise LayerError(
                f"all axes of the selector but the first must be 1, got shape {tuple(selector)}",
                f"bottom.{len(items)}",
            )
        for index, shape in enumerate(items):
            if shape[:1] != selector[:1]:
                raise LayerError(
                    f"all bottoms must have as many items as the selector ({selector[0]}), "
                    f"got shape {tuple(shape)}",
                    f"bottom.{index}",
                )
        return items
