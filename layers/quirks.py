"""What Caffe computes by mistake, for nets with ``caffe_quirks: true`` (docs/differences.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
