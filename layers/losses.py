"""What loss layers share: labels of classes, ignored labels and normalisation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, LabelRange, Layer, Shape, exactly

FULL: int = caffe_pb2.LossParameter.FULL
VALID: int = caffe_pb2.LossParameter.VALID
BATCH_SIZE: int = caffe_pb2.LossParameter.BATCH_SIZE
NONE: int = caffe_pb2.LossParameter.NONE


#: Fields that Caffe's schema has for every loss, though some do not read them.
CAFFE_LOSS_FIELDS = ("ignore_label", "normalization", "normalize")


class ClassifyingLayer(Layer):
    """Base of layers that hold scores, with the classes at ``axis``, against labels (bottom 1)."""

    bottoms = exactly(2)

    axis: int = 1
    ignore_label: int | None = None

    def check_shapes(self, *bottoms: Shape) -> None:
        check_labels(bottoms[0], bottoms[1], self.axis)

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        return LabelRange(1, bottoms[0][self.axis], self.ignore_label)


class LossLayer(Layer):
    """Base of the layers whose top is a loss: a single number, of weight 1 by default."""

    bottoms = exactly(2)
    default_loss_weight = 1.0
    automatic_tops = True
    #: Fields of ``loss_param`` that may be given and change nothing, as in Caffe.
    idle_loss_fields: ClassVar[tuple[str, ...]] = ()
    #: Whether a second top is the softmax of the first bottom.
    with_softmax: bool = False

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        read_loss_param(message.loss_param, cls.idle_loss_fields)
        return super().from_message(message, context)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_shapes(*bottoms)
        return [(), bottoms[0]] if self.with_softmax else [()]


def read_loss_param(
    param: caffe_pb2.LossParameter,
    uses: Collection[str],
    normalization: int = VALID,
    classes: int = 0,
) -> dict[str, Any]:
    """The fields that a layer ``uses``, as arguments of its constructor.

    ``normalization`` is that of a layer which names none; ``classes`` counts those that
    ``class_weight`` must have. LayerError for a field that is given and not used.
    """
    for field, _ in param.ListFields():
        if field.name not in uses and (field.name, "normalization" in uses) != ("normalize", True):
            raise LayerError(
                f"{field.name} has no meaning for this loss and must not be given",
                f"loss_param.{field.name}",
            )
    found = {
        "ignore_label": read_ignore_label(param),
        "normalization": _read_normalization(param, normalization),
        "class_weight": _read_class_weight(param, classes),
        "label_smoothing": param.label_smoothing,
    }
    return {name: value for name, value in found.items() if name in uses}


def _read_normalization(param: caffe_pb2.LossParameter, default: int) -> int:
    """``normalization``, or what the older ``normalize`` means, or ``default``."""
    if param.HasField("normalization"):
        return param.normalization
    if param.HasField("normalize"):
        return VALID if param.normalize else BATCH_SIZE
    return default


def read_ignore_label(
    param: caffe_pb2.LossParameter | caffe_pb2.AccuracyParameter,
) -> int | None:
    return param.ignore_label if param.HasField("ignore_label") else None


def _read_class_weight(param: caffe_pb2.LossParameter, classes: int) -> tuple[float, ...] | None:
    """``class_weight``, None where it is not given; LayerError unless there are ``classes``."""
    weights = tuple(param.class_weight)
    if weights and len(weights) != classes:
        raise LayerError(
            f"class_weight must be given once for each of the {classes} classes, "
            f"got {len(weights)} values",
            "loss_param.class_weight",
        )
    if min(weights, default=0.0) < 0:
        raise LayerError(
            f"class_weight must not be negative, got {min(weights):g}", "loss_param.class_weight"
        )
    return weights or None


def normalizer(mode: int, outer: int, inner: int, counted: Tensor | None) -> float | Tensor:
    """What a sum of losses is divided by; at least 1.

    FULL: all ``outer`` * ``inner`` positions; VALID: those ``counted`` (a mask; None means all);
    BATCH_SIZE: ``outer``; NONE: 1.
    """
    if mode == VALID and counted is not None:
        return counted.sum().clamp(min=1)
    if mode == NONE:
        return 1.0
    return float(max(1, outer if mode == BATCH_SIZE else outer * inner))


def check_labels(scores: Shape, labels: Shape, axis: int) -> None:
    """LayerError unless there is one label for each position of ``scores`` without ``axis``."""
    if prod(labels) * scores[axis] != prod(scores):
        positions = prod(scores) // max(1, scores[axis])
        raise LayerError(
            f"scores of shape {tuple(scores)} with the classes at axis {axis} need {positions} "
            f"labels, got {prod(labels)} (shape {tuple(labels)})",
            "bottom.1",
        )


def check_counts(first: Shape, second: Shape, names: str) -> None:
    """LayerError unless both bottoms, called ``names``, have as many items and values."""
    if prod(first) != prod(second) or first[:1] != second[:1]:
        raise LayerError(
            f"{names} must have the same count, got shapes {tuple(first)} and {tuple(second)}",
            "bottom.1",
        )


def split_labels(
    labels: Tensor, ignore_label: int | None, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """Labels as whole numbers of ``shape``, and a mask of those that count (None: all do).

    An ignored label is replaced by 0, so that it can index; nothing waits for the device.
    """
    index = labels.reshape(shape).long()
    if ignore_label is None:
        return index, None
    counted = index != ignore_label
    return torch.where(counted, index, 0), counted


def widened(x: Tensor) -> Tensor:
    """``x`` in at least 32-bit floats, in which losses are computed."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
