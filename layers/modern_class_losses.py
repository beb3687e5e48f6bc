"""FocalLoss, DiceLoss and CTCLoss: further losses of scores against labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, LabelRange, Shape, between, canonical_axis
from .losses import (
    BATCH_SIZE,
    VALID,
    ClassifyingLayer,
    LossLayer,
    normalizer,
    read_loss_param,
    split_labels,
    widened,
)
from .registry import register


@register("FocalLoss")
class FocalLoss(LossLayer, ClassifyingLayer):
    """-sum of (1 - p)^gamma log p / normalizer, p being softmax(x)[label].

    bottoms: scores ``(N, C, ...)``, the classes at ``axis`` (1), and labels, as many as positions
    -> top ``()``. ``gamma`` (2) makes light of positions that are right already; 0 gives
    SoftmaxWithLoss. ``loss_param`` as there: ``ignore_label``, ``normalization``, which divides by
    counts here, and ``class_weight``, which is alpha of Lin et al. 2017.

    Torch: ``torchvision.ops.sigmoid_focal_loss`` is that of two classes.
    """

    message_field = "focal_loss_param"

    class_weight: Tensor

    def __init__(
        self,
        axis: int = 1,
        *,
        gamma: float = 2.0,
        ignore_label: int | None = None,
        normalization: int = VALID,
        class_weight: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise LayerError(f"gamma must not be negative, got {gamma:g}", "focal_loss_param.gamma")
        self.axis = axis
        self.gamma = gamma
        self.ignore_label = ignore_label
        self.normalization = normalization
        self.weighted = class_weight is not None
        if class_weight is not None:
            self.add_constant("class_weight", class_weight)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> FocalLoss:
        param, shape = message.focal_loss_param, context.shapes[0]
        axis = canonical_axis(param.axis, len(shape), "focal_loss_param.axis")
        return cls(
            axis,
            gamma=param.gamma,
            **read_loss_param(
                message.loss_param,
                ("ignore_label", "normalization", "class_weight"),
                VALID,
                shape[axis],
            ),
        )

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.check_shapes(x.shape, labels.shape)
        outer, inner = prod(x.shape[: self.axis]), prod(x.shape[self.axis + 1 :])
        scores = widened(x).reshape(outer, x.shape[self.axis], inner)
        index, counted = split_labels(labels, self.ignore_label, (outer, 1, inner))
        logs = scores.log_softmax(1).gather(1, index)
        losses = (1 - logs.exp()) ** self.gamma * -logs
        if self.weighted:
            losses = losses * self.class_weight.to(losses.dtype)[index]
        if counted is not None:
            losses = torch.where(counted, losses, 0)
        return losses.sum() / normalizer(self.normalization, outer, inner, counted)


@register("DiceLoss")
class DiceLoss(LossLayer, ClassifyingLayer):
    """1 - the mean over classes of (2 sum p t + s) / (sum p + sum t + s).

    bottoms: scores ``(N, C, ...)``, the classes at ``axis`` (1), and labels, as many as positions
    -> top ``()``. p is the softmax of the scores, t is 1 where the label is the class; the sums go
    over all positions but those of ``loss_param.ignore_label``. ``smooth`` s is 1. Milletari et al.
    2016, who square p and t in the divisor. Other fields of ``loss_param`` are refused.

    Torch: has none.
    """

    message_field = "dice_loss_param"

    def __init__(
        self, axis: int = 1, *, smooth: float = 1.0, ignore_label: int | None = None
    ) -> None:
        super().__init__()
        self.axis = axis
        self.smooth = smooth
        self.ignore_label = ignore_label

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> DiceLoss:
        param = message.dice_loss_param
        axis = canonical_axis(param.axis, len(context.shapes[0]), "dice_loss_param.axis")
        given = read_loss_param(message.loss_param, ("ignore_label",))
        return cls(axis, smooth=param.smooth, **given)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.check_shapes(x.shape, labels.shape)
        outer, inner = prod(x.shape[: self.axis]), prod(x.shape[self.axis + 1 :])
        p = widened(x).reshape(outer, x.shape[self.axis], inner).softmax(1)
        index, counted = split_labels(labels, self.ignore_label, (outer, 1, inner))
        t = torch.zeros_like(p).scatter_(1, index, 1.0)
        if counted is not None:
            p, t = p * counted, t * counted
        shared, whole = (p * t).sum((0, 2)), (p + t).sum((0, 2))
        return 1 - ((2 * shared + self.smooth) / (whole + self.smooth)).mean()


@register("CTCLoss")
class CTCLoss(LossLayer):
    """-log of the chance of each label sequence under all its alignments, summed / normalizer.

    bottoms: scores ``(T, N, C)``, labels ``(N, L)``, negative where a sequence has no more, and
    maybe the steps ``(N)`` that count of each sequence, T for all otherwise -> top ``()``. The
    softmax over C is part of the layer; class ``blank`` (0) stands for no label and is none.
    ``loss_param.normalization``: the number of sequences (BATCH_SIZE, the default), of labels
    (VALID), of places for labels (FULL), or 1 (NONE). A sequence too short for its labels costs
    infinity, or nothing with ``zero_infinity``. On CUDA torch reads the lengths on the host; the
    layer cannot be traced by torch.compile. Graves et al. 2006.

    Torch: ``F.ctc_loss`` takes logarithms of probabilities and the lengths of labels.
    """

    message_field = "ctc_loss_param"
    bottoms = between(2, 3)

    def __init__(
        self, *, blank: int = 0, zero_infinity: bool = False, normalization: int = BATCH_SIZE
    ) -> None:
        super().__init__()
        self.blank = blank
        self.zero_infinity = zero_infinity
        self.normalization = normalization

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> CTCLoss:
        param, shape = message.ctc_loss_param, context.shapes[0]
        if len(shape) == 3 and not 0 <= param.blank < shape[2]:
            raise LayerError(
                f"blank must be one of the {shape[2]} classes, got {param.blank}",
                "ctc_loss_param.blank",
            )
        return cls(
            blank=param.blank,
            zero_infinity=param.zero_infinity,
            **read_loss_param(message.loss_param, ("normalization",), BATCH_SIZE),
        )

    def forward(self, x: Tensor, labels: Tensor, steps: Tensor | None = None) -> Tensor:
        self.check_shapes(*(each.shape for each in (x, labels, steps) if each is not None))
        if x.is_meta:
            return x.new_empty(())
        batch = x.shape[1]
        given = labels >= 0
        lengths = x.new_full((batch,), x.shape[0]) if steps is None else steps.reshape(batch)
        loss = F.ctc_loss(
            widened(x).log_softmax(2),
            labels.clamp(min=0).long(),
            lengths.long(),
            given.sum(1),
            self.blank,
            "sum",
            self.zero_infinity,
        )
        return loss / normalizer(self.normalization, batch, labels.shape[1], given)

    def check_shapes(self, *bottoms: Shape) -> None:
        scores, labels, *steps = bottoms
        batch = scores[1] if len(scores) == 3 else -1
        if len(labels) != 2 or labels[0] != batch:
            raise LayerError(
                "the bottoms must have shapes (T, N, C) and (N, L), got "
                f"{tuple(scores)} and {tuple(labels)}",
                "bottom.1",
            )
        if steps and prod(steps[0]) != batch:
            raise LayerError(
                f"there must be one number of steps for each of the {batch} sequences, got shape "
                f"{tuple(steps[0])}",
                "bottom.2",
            )

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        return LabelRange(1, bottoms[0][2], -1)
