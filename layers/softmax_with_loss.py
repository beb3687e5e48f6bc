"""SoftmaxWithLoss: the multinomial logistic loss of scores."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Shape, between, canonical_axis
from .losses import (
    VALID,
    ClassifyingLayer,
    LossLayer,
    normalizer,
    read_loss_param,
    split_labels,
    widened,
)
from .native import softmax_loss
from .registry import register

#: Caffe takes the logarithm of probabilities not below the smallest normal float.
FLOOR = torch.finfo(torch.float32).tiny
LOSS_FIELDS = ("ignore_label", "normalization", "class_weight", "label_smoothing")
#: What torch's own loss is told to pass over.
IGNORED = -100


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer, ClassifyingLayer):
    """-sum of log softmax(x)[label] / normalizer, with the classes at ``softmax_param.axis`` (1).

    bottoms: scores ``(N, C, ...)`` and labels, as many as positions, whole numbers from 0 to C - 1
    held as floats -> top ``()``; a second top is the softmax, without gradient. ``loss_param``:
    positions with ``ignore_label`` do not count; ``normalization`` divides by the positions that
    count (VALID, the default), all positions (FULL), the product of the axes before the classes
    (BATCH_SIZE) or 1 (NONE). The older ``normalize`` means VALID, or BATCH_SIZE when false.

    Beyond Caffe labels may have the shape of the scores: the share of each class, as mixup makes
    them. The loss is then -sum of share * log softmax(x).

    Beyond Caffe: ``class_weight``, once for each class, multiplies the loss of the positions of a
    class, and VALID divides by the sum of their weights; ``label_smoothing`` e (0) puts 1 - e of
    the target on the label and spreads e evenly over all classes. Both as in torch's
    cross_entropy. Szegedy et al. 2016.

    Torch: ``F.cross_entropy``, the same by default for positions that count.
    """

    message_field = "softmax_param"
    tops = between(1, 2)

    class_weight: Tensor

    def __init__(
        self,
        axis: int = 1,
        *,
        ignore_label: int | None = None,
        normalization: int = VALID,
        with_softmax: bool = False,
        class_weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise LayerError(
                f"label_smoothing must be from 0 to 1, got {label_smoothing:g}",
                "loss_param.label_smoothing",
            )
        self.axis = axis
        self.ignore_label = ignore_label
        self.normalization = normalization
        self.with_softmax = with_softmax
        self.label_smoothing = label_smoothing
        self.weighted = class_weight is not None
        if class_weight is not None:
            self.add_constant("class_weight", class_weight)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> SoftmaxWithLoss:
        shape = context.shapes[0]
        axis = canonical_axis(message.softmax_param.axis, len(shape), "softmax_param.axis")
        return cls(
            axis,
            with_softmax=context.num_tops == 2,
            **read_loss_param(message.loss_param, LOSS_FIELDS, VALID, shape[axis]),
        )

    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        sizes = x.shape
        outer, inner = prod(sizes[: self.axis]), prod(sizes[self.axis + 1 :])
        if labels.numel() != outer * inner or (labels.dim() and labels.shape[0] != sizes[0]):
            self.check_shapes(sizes, labels.shape)  # refuses all but shares
            return self._with_shares(x, labels)
        # Torch is several times faster where the classes are the last axis.
        places = (inner,) if inner > 1 else ()
        shape = (outer, sizes[self.axis], *places)
        scores = x if sizes == shape else x.reshape(shape)
        loss = self._native(scores, labels) if inner == 1 else None
        if loss is None:
            loss = self._composed(scores, labels, (outer, 1, *places), inner)
        if not self.with_softmax:
            return loss
        return loss, widened(scores.detach()).softmax(1).reshape(sizes)

    def _native(self, scores: Tensor, labels: Tensor) -> Tensor | None:
        """The loss by the kernel, None where it does not do it."""
        if self.weighted or self.label_smoothing:
            return None
        valid = self.normalization == VALID and self.ignore_label is not None
        divisor = None if valid else float(normalizer(self.normalization, len(scores), 1, None))
        return softmax_loss.loss(scores, labels, self.ignore_label, divisor)

    def _composed(
        self, scores: Tensor, labels: Tensor, shape: tuple[int, ...], inner: int
    ) -> Tensor:
        """The loss by torch's operations."""
        index, counted = split_labels(labels, self.ignore_label, shape)
        divisor = normalizer(self.normalization, shape[0], inner, counted)
        if self.weighted or self.label_smoothing:
            loss, divisor = self._graded(scores, index.squeeze(1), counted, divisor)
            return loss / divisor
        loss = _LogLoss.apply(scores, index, counted, divisor)
        return loss

    def check_shapes(self, *bottoms: Shape) -> None:
        scores, labels = bottoms
        if labels and scores[0] != labels[0]:
            raise LayerError(
                f"scores and labels must have the same first axis, got shapes {tuple(scores)} "
                f"and {tuple(labels)}",
                "bottom.1",
            )
        if not self._shares(scores, labels):
            super().check_shapes(scores, labels)

    def _shares(self, scores: Shape, labels: Shape) -> bool:
        """Whether ``labels`` are shares of each class."""
        return labels == scores and scores[self.axis] > 1

    def _with_shares(self, x: Tensor, shares: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        outer, inner = prod(x.shape[: self.axis]), prod(x.shape[self.axis + 1 :])
        logs = torch.log_softmax(widened(x), self.axis)
        shares = shares.detach()
        if self.label_smoothing:
            even = torch.full_like(shares, 1 / x.shape[self.axis])
            shares = shares.lerp(even, self.label_smoothing)
        if self.weighted:
            shares = shares * self.class_weight.view(-1, *[1] * (x.dim() - 1 - self.axis))
        total = -(shares * logs).sum()
        loss = total / normalizer(self.normalization, outer, inner, None)
        return (loss, logs.detach().exp()) if self.with_softmax else loss

    def _graded(
        self, scores: Tensor, index: Tensor, counted: Tensor | None, divisor: float | Tensor
    ) -> tuple[Tensor, float | Tensor]:
        """The summed loss with class weights and smoothed labels, and its divisor."""
        weight = self.class_weight if self.weighted else None
        if counted is not None:
            counted = counted.squeeze(1)
            index = torch.where(counted, index, IGNORED)
        x = widened(scores)
        loss = F.cross_entropy(
            x,
            index,
            None if weight is None else weight.to(x.dtype),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        if weight is not None and self.normalization == VALID:
            weights = weight[index.clamp(min=0)]
            divisor = (weights if counted is None else weights * counted).sum()
            divisor = torch.where(divisor > 0, divisor, 1)
        return loss, divisor


class _LogLoss(torch.autograd.Function):
    """The loss over its divisor; the softmax is all that backward needs.

    It takes half the time of its logarithm, of which only the labels' is used.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, counted: Tensor | None, divisor: float | Tensor
    ) -> Tensor:
        softmax = torch.softmax(widened(x), 1)
        logs = softmax.gather(1, index).clamp_(min=FLOOR).log_()
        if counted is not None:
            logs = torch.where(counted, logs, 0)
        # Negative, so that neither pass needs an operation for the sign.
        share = -1.0 / divisor
        on_device = share if isinstance(share, Tensor) else None
        ctx.save_for_backward(softmax, index, counted, on_device)
        ctx.share = share if on_device is None else None
        return logs.sum().mul_(share)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        softmax, index, counted, share = ctx.saved_tensors
        towards = grads[0] * (ctx.share if share is None else share)
        if counted is not None:
            towards = towards * counted
        grad = softmax * -towards
        grad.scatter_add_(1, index, towards.expand_as(index))
        return grad, None, None, None
