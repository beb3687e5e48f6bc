"""HingeLoss, MultinomialLogisticLoss, InfogainLoss: further losses of class labels."""

from __future__ import annotations

from math import log, prod
from pathlib import Path

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Shape, between, canonical_axis
from .losses import (
    CAFFE_LOSS_FIELDS,
    VALID,
    ClassifyingLayer,
    LossLayer,
    normalizer,
    read_loss_param,
    split_labels,
    widened,
)
from .registry import register

L1: int = caffe_pb2.HingeLossParameter.L1
L2: int = caffe_pb2.HingeLossParameter.L2
#: Probabilities below this are taken as this in a logarithm.
PROBABILITY_FLOOR = 1e-20


class RowsLoss(LossLayer, ClassifyingLayer):
    """Base of losses for which each item is one row of scores, with one label."""

    idle_loss_fields = CAFFE_LOSS_FIELDS

    def rows(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Each item of ``x`` as one row, and one label for each as a whole number, ``(N, 1)``."""
        self.check_shapes(x.shape, labels.shape)
        count = x.shape[0]
        return widened(x.reshape(count, -1)), labels.reshape(count, 1).long()

    def check_shapes(self, *bottoms: Shape) -> None:
        scores, labels = bottoms
        if len(scores) < 2 or prod(labels) != scores[0]:
            raise LayerError(
                f"there must be one label for each item of the first bottom (shape "
                f"{tuple(scores)}), got shape {tuple(labels)}",
                "bottom.1",
            )


@register("HingeLoss")
class HingeLoss(RowsLoss):
    """sum of max(0, 1 - s x)^p / N, s being 1 for the labelled class and -1 for all others.

    bottoms: scores ``(N, C)`` and labels ``(N)``, whole numbers from 0 to C - 1 held as floats ->
    top ``()``. p is 1 with ``norm`` L1, the default, and 2 with L2.

    Torch: ``F.multi_margin_loss`` compares with the label's score; here every score has a margin of
    its own.
    """

    message_field = "hinge_loss_param"

    def __init__(self, norm: int = L1) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        scores, index = self.rows(x, labels)
        sign = torch.ones_like(scores).scatter(1, index, -1.0)
        margin = torch.relu(torch.addcmul(torch.ones((), device=x.device), scores, sign))
        total = (margin * margin if self.norm == L2 else margin).sum()
        return total / max(1, scores.shape[0])


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(RowsLoss):
    """-sum of log p[label] / N for probabilities p ``(N, C)``, taken as 1e-20 where below it.

    The labels ``(N)`` are whole numbers from 0 to C - 1 held as floats.

    Torch: ``F.nll_loss``, which takes logarithms.
    """

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        probabilities, index = self.rows(x, labels)
        picked = probabilities.gather(1, index)
        # The gradient is that of the logarithm even below the floor, as in Caffe.
        floored = picked + (PROBABILITY_FLOOR - picked).clamp(min=0).detach()
        return -floored.log().sum() / max(1, probabilities.shape[0])


@register("InfogainLoss")
class InfogainLoss(LossLayer, ClassifyingLayer):
    """-sum over classes c of H[label, c] * log softmax(x)[c], over the normalizer.

    bottoms: scores with the C classes at ``axis`` (1), labels as in SoftmaxWithLoss, and the matrix
    H ``(C, C)``, unless ``source`` names a binary BlobProto file that holds it -> top ``()``; a
    second top is the softmax, without gradient. ``loss_param`` as in SoftmaxWithLoss, without
    ``normalize``. With H the identity this is SoftmaxWithLoss.

    Torch: has none; with the identity as matrix it is ``F.cross_entropy``.
    """

    message_field = "infogain_loss_param"
    bottoms = between(2, 3)
    tops = between(1, 2)

    matrix: Tensor

    def __init__(
        self,
        axis: int = 1,
        matrix: Tensor | None = None,
        *,
        ignore_label: int | None = None,
        normalization: int = VALID,
        with_softmax: bool = False,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.ignore_label = ignore_label
        self.normalization = normalization
        self.with_softmax = with_softmax
        self.values = matrix
        empty = torch.empty(0) if matrix is None else torch.empty_like(matrix, device="meta")
        self.register_buffer("matrix", empty, persistent=False)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> InfogainLoss:
        param = message.infogain_loss_param
        if message.loss_param.HasField("normalize"):
            raise LayerError(
                "InfogainLoss has no normalize; use normalization", "loss_param.normalize"
            )
        axis = canonical_axis(param.axis, len(context.shapes[0]), "infogain_loss_param.axis")
        matrix = None
        if len(context.shapes) == 2:
            matrix = _read_matrix(param, context.shapes[0][axis])
        return cls(
            axis,
            matrix,
            **read_loss_param(message.loss_param, ("ignore_label", "normalization")),
            with_softmax=context.num_tops == 2,
        )

    def materialize(self, device: torch.device | str = "cpu") -> None:
        super().materialize(device)
        if self.values is not None:
            self.matrix = self.values.to(device)

    def forward(
        self, x: Tensor, labels: Tensor, matrix: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        gains = self.matrix if matrix is None else matrix
        self.check_shapes(x.shape, labels.shape, gains.shape)
        classes = x.shape[self.axis]
        gains = gains.detach().reshape(classes, classes).to(widened(x).dtype)
        outer, inner = prod(x.shape[: self.axis]), prod(x.shape[self.axis + 1 :])
        shape = (outer, inner)
        index, counted = split_labels(labels, self.ignore_label, shape)
        divisor = normalizer(self.normalization, outer, inner, counted)
        logs = torch.log_softmax(widened(x).reshape(outer, classes, inner), 1)
        softmax = logs.detach().exp()
        floored = logs + (log(PROBABILITY_FLOOR) - logs).clamp(min=0).detach()
        # H[label] has the classes last; the scores have them in the middle.
        each = (gains[index].transpose(1, 2) * floored).sum(1)
        if counted is not None:
            each = torch.where(counted, each, 0)
        loss = -each.sum() / divisor
        return (loss, softmax.reshape(x.shape)) if self.with_softmax else loss

    def check_shapes(self, *bottoms: Shape) -> None:
        scores, labels, *given = bottoms
        super().check_shapes(scores, labels)
        classes = scores[self.axis]
        if prod(given[0] if given else self.matrix.shape) != classes * classes:
            raise LayerError(f"H must hold {classes} x {classes} values", "bottom.2")


def _read_matrix(param: caffe_pb2.InfogainLossParameter, classes: int) -> Tensor:
    """The matrix in the file that ``source`` names."""
    field = "infogain_loss_param.source"
    if not param.HasField("source"):
        raise LayerError("without a third bottom, source must name the file of the matrix H", field)
    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(Path(param.source).read_bytes())
    except OSError as error:
        raise LayerError(f"cannot read {param.source!r}: {error.strerror}", field) from error
    except DecodeError as error:
        raise LayerError(f"{param.source!r} holds no BlobProto", field) from error
    values = np.array(blob.data or blob.double_data, dtype=np.float32)
    if values.size != classes * classes:
        raise LayerError(
            f"the matrix in {param.source!r} must hold {classes} x {classes} values for "
            f"{classes} classes, got {values.size}",
            field,
        )
    return torch.from_numpy(values.reshape(classes, classes))
