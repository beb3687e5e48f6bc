"""Accuracy and ArgMax: what was predicted, and how often that was right."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, between, canonical_axis, exactly
from .losses import ClassifyingLayer, read_ignore_label, split_labels, widened
from .registry import register


@register("Accuracy")
class Accuracy(ClassifyingLayer):
    """The share of positions whose true class is among the ``top_k`` (1) best scores.

    bottoms: scores with the C classes at ``axis`` (1), and one label for each position -> top
    ``()``; a second top ``(C)`` has the share for each true class, 0 for one that does not occur.
    Another class of the same score counts as better. Labels equal to ``ignore_label`` do not
    count; where none count the accuracy is 0. It has no gradient.

    Torch: has none.
    """

    message_field = "accuracy_param"
    bottoms = exactly(2)
    tops = between(1, 2)
    differentiable = False

    def __init__(
        self,
        top_k: int = 1,
        axis: int = 1,
        *,
        ignore_label: int | None = None,
        per_class: bool = False,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.axis = axis
        self.ignore_label = ignore_label
        self.per_class = per_class

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Accuracy:
        param = message.accuracy_param
        shape = context.shapes[0]
        axis = canonical_axis(param.axis, len(shape), "accuracy_param.axis")
        if not 1 <= param.top_k <= shape[axis]:
            raise LayerError(
                f"top_k must be from 1 to the number of classes ({shape[axis]}), got {param.top_k}",
                "accuracy_param.top_k",
            )
        return cls(
            param.top_k,
            axis,
            ignore_label=read_ignore_label(param),
            per_class=context.num_tops == 2,
        )

    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        self.check_shapes(x.shape, labels.shape)
        outer, inner = prod(x.shape[: self.axis]), prod(x.shape[self.axis + 1 :])
        classes = x.shape[self.axis]
        scores = x.detach().reshape(outer, classes, inner)
        index, counted = split_labels(labels, self.ignore_label, (outer, 1, inner))
        # The true class is among those at least as good as itself.
        rank = (scores >= scores.gather(1, index)).sum(1, keepdim=True)
        right = (rank <= self.top_k).to(widened(x).dtype)
        if counted is None:
            each = torch.ones_like(right)
        else:
            each = counted.to(right.dtype)
            right = right * each
        accuracy = right.sum() / each.sum().clamp(min=1)
        if not self.per_class:
            return accuracy
        zeros, flat = right.new_zeros(classes), index.reshape(-1)
        hits = zeros.index_add(0, flat, right.reshape(-1))
        return accuracy, hits / zeros.index_add(0, flat, each.reshape(-1)).clamp(min=1)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_shapes(*bottoms)
        return [(), (bottoms[0][self.axis],)] if self.per_class else [()]


@register("ArgMax")
class ArgMax(Layer):
    """The positions of the ``top_k`` (1) largest values, best first, as floats.

    Without ``axis`` each item is taken as one vector: bottom ``(N, ...)`` -> top ``(N, 1, top_k)``
    with further axes of 1 if the bottom has more than 3; with ``out_max_val`` the second axis holds
    positions, then values. With ``axis`` that axis shrinks to ``top_k``, and ``out_max_val`` gives
    values instead of positions. Of equal values the later comes first. It has no gradient.

    Torch: ``torch.topk``; without ``axis`` all axes from the first on are one, and the result is
    float.
    """

    message_field = "argmax_param"
    differentiable = False

    def __init__(self, top_k: int = 1, axis: int | None = None, out_max_val: bool = False) -> None:
        super().__init__()
        self.top_k = top_k
        self.axis = axis
        self.out_max_val = out_max_val

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> ArgMax:
        param = message.argmax_param
        shape = context.shapes[0]
        axis = None
        if param.HasField("axis"):
            axis = canonical_axis(param.axis, len(shape), "argmax_param.axis")
        return cls(param.top_k, axis, param.out_max_val)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach()
        if self.axis is not None:
            values, positions = self._best(x, self.axis)
            return values if self.out_max_val else positions
        values, positions = self._best(x.reshape(x.shape[0], -1), 1)
        chosen = [positions, values] if self.out_max_val else [positions]
        return torch.stack(chosen, 1).reshape(*x.shape[:1], -1, self.top_k, *[1] * (x.dim() - 3))

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        if not shape:
            raise LayerError("the bottom must have at least 1 axis", "bottom")
        choices = prod(shape[1:]) if self.axis is None else shape[self.axis]
        if not 1 <= self.top_k <= choices:
            raise LayerError(
                f"top_k must be from 1 to {choices}, got {self.top_k}", "argmax_param.top_k"
            )
        if self.axis is not None:
            return [(*shape[: self.axis], self.top_k, *shape[self.axis + 1 :])]
        return [(shape[0], 1 + self.out_max_val, self.top_k, *[1] * (len(shape) - 3))]

    def _best(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        # From behind, the first of equal values is the one that comes last.
        behind = x.flip(axis)
        if self.top_k == 1:
            values, index = behind.max(axis, keepdim=True)
        else:
            values, index = torch.sort(behind, stable=True, dim=axis, descending=True)
            values, index = (t.narrow(axis, 0, self.top_k) for t in (values, index))
        return values, (x.shape[axis] - 1 - index).to(x.dtype)
