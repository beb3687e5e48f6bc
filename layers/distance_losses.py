"""SmoothL1Loss and TripletLoss: further losses of distances."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Shape, between, exactly
from .losses import BATCH_SIZE, LossLayer, normalizer, read_loss_param, widened
from .native import element_losses
from .registry import register


@register("SmoothL1Loss")
class SmoothL1Loss(LossLayer):
    """Sum of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, / normalizer; d = a - b.

    bottoms: a and b of one shape ``(N, ...)``, maybe a factor for each element -> top ``()``. Only
    a and b get gradients. ``beta`` is 1; 0 gives the sum of |d|. ``loss_param.normalization``
    divides by N (BATCH_SIZE, the default), the number of elements (FULL or VALID) or 1 (NONE).
    Girshick 2015.

    Torch: ``F.smooth_l1_loss``, which divides by the number of elements (``normalization: FULL``).
    """

    message_field = "smooth_l1_loss_param"
    bottoms = between(2, 3)

    def __init__(self, beta: float = 1.0, normalization: int = BATCH_SIZE) -> None:
        super().__init__()
        if beta < 0:
            raise LayerError(
                f"beta must not be negative, got {beta:g}", "smooth_l1_loss_param.beta"
            )
        self.beta = beta
        self.normalization = normalization

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> SmoothL1Loss:
        given = read_loss_param(message.loss_param, ("normalization",), BATCH_SIZE)
        return cls(message.smooth_l1_loss_param.beta, **given)

    def forward(self, a: Tensor, b: Tensor, factors: Tensor | None = None) -> Tensor:
        self.check_shapes(*(each.shape for each in (a, b, factors) if each is not None))
        outer = a.shape[0] if a.dim() else 1
        divisor = normalizer(self.normalization, outer, a.numel() // max(1, outer), None)
        if factors is None and self.beta:
            fast = element_losses.loss("smooth_l1", a, b, 1 / float(divisor), self.beta)
            if fast is not None:
                return fast
        reduction = "sum" if factors is None else "none"
        loss = F.smooth_l1_loss(widened(a), widened(b), reduction=reduction, beta=self.beta)
        if factors is not None:
            loss = (loss * factors.detach()).sum()
        return loss / divisor

    def check_shapes(self, *bottoms: Shape) -> None:
        for index, shape in enumerate(bottoms):
            if shape != bottoms[0]:
                raise LayerError(
                    f"the bottoms must have one shape, got {tuple(bottoms[0])} and {tuple(shape)}",
                    f"bottom.{index}",
                )


@register("TripletLoss")
class TripletLoss(LossLayer):
    """Sum over triplets of max(d(a, p) - d(a, n) + margin, 0), / N.

    bottoms: anchors a, positives p and negatives n, all ``(N, ...)`` -> top ``()``. d is the
    distance by the norm ``p`` (2), and ``margin`` is 1. With ``swap`` d(p, n) takes the place of
    d(a, n) where it is smaller. Schroff et al. 2015, who square the distances.

    Torch: ``F.triplet_margin_loss``, the same.
    """

    message_field = "triplet_loss_param"
    bottoms = exactly(3)

    def __init__(self, margin: float = 1.0, p: float = 2.0, swap: bool = False) -> None:
        super().__init__()
        if margin <= 0 or p <= 0:
            raise LayerError(
                f"margin and p must be greater than 0, got {margin:g} and {p:g}",
                "triplet_loss_param",
            )
        self.margin = margin
        self.p = p
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        self.check_shapes(anchor.shape, positive.shape, negative.shape)
        anchor, positive, negative = (
            widened(x).reshape(x.shape[0], -1) for x in (anchor, positive, negative)
        )
        return F.triplet_margin_loss(
            anchor, positive, negative, margin=self.margin, p=self.p, swap=self.swap
        )

    def check_shapes(self, *bottoms: Shape) -> None:
        anchor, positive, negative = bottoms
        if not anchor or not anchor == positive == negative:
            raise LayerError(
                f"the bottoms must have one shape (N, ...), got {tuple(anchor)}, "
                f"{tuple(positive)} and {tuple(negative)}",
                "bottom",
            )
