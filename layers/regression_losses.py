"""EuclideanLoss, ContrastiveLoss: losses of distances."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from ..proto.errors import LayerError
from .base import Shape, exactly
from .losses import CAFFE_LOSS_FIELDS, LossLayer, check_counts, widened
from .registry import register


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """sum of (a - b)^2 / (2 N), N being the first axis. Both bottoms get gradients.

    Torch: ``F.mse_loss`` with ``reduction="sum"``, divided by 2 N.
    """

    idle_loss_fields = CAFFE_LOSS_FIELDS

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            self.check_shapes(a.shape, b.shape)
            b = b.reshape(a.shape)
        count = max(1, a.shape[0] if a.dim() else 1)
        loss: Tensor = _HalfSquares.apply(widened(a), widened(b), 1.0 / count)
        return loss

    def check_shapes(self, *bottoms: Shape) -> None:
        check_counts(bottoms[0], bottoms[1], "both bottoms")


class _HalfSquares(torch.autograd.Function):
    """Half the sum of (a - b)^2, times ``factor``; both gradients come of one difference."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.factor = factor
        difference = (a - b).reshape(-1)
        return difference.dot(difference).mul_(0.5 * factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        for_a = torch.sub(a, b).mul_(grads[0] * ctx.factor)
        return for_a, -for_a if ctx.needs_input_grad[1] else None, None


@register("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    """Pulls similar pairs together and pushes others apart, up to a margin.

    bottoms: a and b ``(N, C)``, and ``(N)``, which is not 0 for similar pairs -> top ``()``: the
    sum over pairs of d^2 where similar, else max(margin - d, 0)^2, over 2 N, d being the distance
    of a and b. ``margin`` is 1 by default; ``legacy_version`` has max(margin - d^2, 0) instead. As
    in Caffe the gradient divides by d + 1e-4, not d. Hadsell et al. 2006.

    Torch: has none; ``F.cosine_embedding_loss`` is of this kind.
    """

    message_field = "contrastive_loss_param"
    idle_loss_fields = CAFFE_LOSS_FIELDS
    bottoms = exactly(3)

    def __init__(self, margin: float = 1.0, legacy_version: bool = False) -> None:
        super().__init__()
        self.margin = margin
        self.legacy_version = legacy_version

    def forward(self, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
        self.check_shapes(a.shape, b.shape, similar.shape)
        count = a.shape[0]
        difference = widened(a.reshape(count, -1)) - widened(b.reshape(count, -1))
        same = similar.reshape(count).trunc() != 0
        squared = (difference * difference).sum(1)
        if self.legacy_version:
            apart = torch.relu(self.margin - squared)
        else:
            apart = torch.relu(self.margin - _Distance.apply(difference)) ** 2
        return torch.where(same, squared, apart).sum() / (2 * count)

    def check_shapes(self, *bottoms: Shape) -> None:
        a, b, similar = bottoms
        if len(a) < 2 or a != b or prod(a[2:]) != 1:
            raise LayerError(
                "the first two bottoms must have one shape (N, C) or (N, C, 1, 1), got "
                f"{tuple(a)} and {tuple(b)}",
                "bottom",
            )
        if prod(similar) != a[0] or similar[:1] != a[:1]:
            raise LayerError(
                f"the third bottom must hold one number for each of the {a[0]} pairs, got shape "
                f"{tuple(similar)}",
                "bottom.2",
            )


class _Distance(torch.autograd.Function):
    """The length of each row; its gradient is finite at 0, as Caffe adds 1e-4 to the divisor."""

    @staticmethod
    def forward(ctx: Any, difference: Tensor) -> Tensor:
        length = (difference * difference).sum(1).sqrt()
        ctx.save_for_backward(difference, length)
        return length

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        difference, length = ctx.saved_tensors
        return difference * (grads[0] / (length + 1e-4)).unsqueeze(1)
