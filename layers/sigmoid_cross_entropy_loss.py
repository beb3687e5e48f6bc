"""SigmoidCrossEntropyLoss: independent yes-or-no predictions."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from .base import Context, Shape
from .losses import (
    BATCH_SIZE,
    LossLayer,
    check_counts,
    normalizer,
    read_loss_param,
    widened,
)
from .native import element_losses
from .registry import register


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """-sum of t log sigmoid(x) + (1 - t) log(1 - sigmoid(x)), over the normalizer.

    bottoms: scores x and targets t from 0 to 1, of equal counts -> top ``()``. ``loss_param`` as in
    SoftmaxWithLoss, each element being a position, but BATCH_SIZE is the default normalization;
    ``ignore_label`` is compared with the target cut to a whole number, so that 0 ignores all
    targets below 1, as in Caffe. Targets get no gradient.

    Torch: ``F.binary_cross_entropy_with_logits``, which has means by default and no ignored label.
    """

    def __init__(self, *, ignore_label: int | None = None, normalization: int = BATCH_SIZE) -> None:
        super().__init__()
        self.ignore_label = ignore_label
        self.normalization = normalization

    @classmethod
    def from_message(
        cls, message: caffe_pb2.LayerParameter, context: Context
    ) -> SigmoidCrossEntropyLoss:
        fields = ("ignore_label", "normalization")
        return cls(**read_loss_param(message.loss_param, fields, BATCH_SIZE))

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        if x.shape != targets.shape:
            self.check_shapes(x.shape, targets.shape)
            targets = targets.reshape(x.shape)
        outer = x.shape[0] if x.dim() else 1
        targets = targets.detach()
        if self.ignore_label is None:
            divisor = normalizer(self.normalization, outer, prod(x.shape[1:]), None)
            fast = element_losses.loss("sigmoid", x, targets, 1 / float(divisor))
            if fast is not None:
                return fast
        targets = targets.to(widened(x).dtype)
        counted = None
        if self.ignore_label is not None:
            counted = targets.trunc() != self.ignore_label
        divisor = normalizer(self.normalization, outer, prod(x.shape[1:]), counted)
        if counted is None:
            total = F.binary_cross_entropy_with_logits(widened(x), targets, reduction="sum")
        else:
            each = F.binary_cross_entropy_with_logits(widened(x), targets, reduction="none")
            total = torch.where(counted, each, 0).sum()
        return total / divisor

    def check_shapes(self, *bottoms: Shape) -> None:
        check_counts(bottoms[0], bottoms[1], "scores and targets")
