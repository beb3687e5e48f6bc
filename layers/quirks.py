"""What Caffe computes by mistake, for nets with ``caffe_quirks: true`` (docs/differences.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..proto.errors import LayerError
from .base import Context


def asked_for(context: Context) -> bool:
    """Whether the net wants Caffe's mistakes of this layer in place."""
    return context.caffe_quirks and context.in_place


def refuse(context: Context, what: str) -> None:
    """LayerError if the net wants a mistake with which nothing can be trained."""
    if asked_for(context):
        raise LayerError(
            f"Caffe computes {what} in place from values that it has overwritten, which "
            "caffe_quirks does not repeat: give the top a name of its own",
            "top",
        )


class SlopeOfTop(torch.autograd.Function):
    """``function`` of each element, whose slope is taken where the top is: it lies on the bottom.

    ``slope`` gives it from the top and the gradient that comes in.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        function: Callable[[Tensor], Tensor],
        slope: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        y = function(x)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return ctx.slope(y, grads[0]), None, None


class PowerInPlace(torch.autograd.Function):
    """Power whose top is its bottom: the gradient that comes in is overwritten before it is used.

    Forward hands on ``y``; the gradient of x is the square of the slope, which is computed with y
    in the place of x, as that is what the blob then holds.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, power: float, scale: float, shift: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.numbers = (power, scale, shift)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        power, scale, shift = ctx.numbers
        if power == 1 or power * scale == 0:
            slope = torch.full_like(y, power * scale)
        elif power == 2:
            slope = power * scale * (scale * y + shift)
        else:
            slope = power * scale * y / (scale * y + shift)
        return slope * slope, None, None, None, None


class SumInPlace(torch.autograd.Function):
    """Eltwise SUM whose top is its first bottom: both are cleared before anything is added.

    So the first bottom does not count, and the gradients of the others carry its coefficient too.
    """

    @staticmethod
    def forward(ctx: Any, coeff: Sequence[float], *bottoms: Tensor) -> Tensor:
        ctx.coeff = coeff
        y = torch.zeros_like(bottoms[0])
        for factor, x in zip(coeff[1:], bottoms[1:], strict=True):
            y = torch.add(y, x, alpha=factor)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first, *others = ctx.coeff
        grad = grads[0] * first
        return None, grad, *(grad * factor for factor in others)
