"""MatMul, CosineSimilarity and Gather: two blobs of which neither is a weight."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto.errors import LayerError
from .base import LabelRange, Layer, Shape, canonical_axis, exactly
from .registry import register


@register("MatMul")
class MatMul(Layer):
    """y = a b, a product of matrices in the last two axes.

    bottoms: a ``(..., M, K)``, b ``(..., K, N)`` -> top ``(..., M, N)``; the axes before are equal
    or 1. ``transpose_a`` and ``transpose_b`` take a ``(..., K, M)`` and b ``(..., N, K)``.

    Torch: ``torch.matmul`` of at least two axes each.
    """

    message_field = "matmul_param"
    bottoms = exactly(2)

    def __init__(self, transpose_a: bool = False, transpose_b: bool = False) -> None:
        super().__init__()
        self.transpose_a = transpose_a
        self.transpose_b = transpose_b

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.check_shapes(a.shape, b.shape)
        left = a.transpose(-2, -1) if self.transpose_a else a
        right = b.transpose(-2, -1) if self.transpose_b else b
        return torch.matmul(left, right)

    def check_shapes(self, *bottoms: Shape) -> None:
        a, b = bottoms
        if len(a) < 2 or len(b) < 2:
            raise LayerError(
                f"both bottoms must have at least 2 axes, got shapes {tuple(a)} and {tuple(b)}",
                "bottom",
            )
        left, right = self._matrices(a, b)
        if left[1] != right[0]:
            raise LayerError(f"matrices of shapes {left} and {right} have no product", "bottom.1")

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_shapes(*bottoms)
        left, right = self._matrices(*bottoms)
        return [(*_repeated(*bottoms), left[0], right[1])]

    def _matrices(self, a: Shape, b: Shape) -> tuple[Shape, Shape]:
        """Rows and columns of the factors."""
        left = (a[-1], a[-2]) if self.transpose_a else (a[-2], a[-1])
        right = (b[-1], b[-2]) if self.transpose_b else (b[-2], b[-1])
        return left, right

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        inner = bottoms[0][-2 if self.transpose_a else -1]
        return prod(tops[0]) * inner


def _repeated(a: Shape, b: Shape) -> Shape:
    """The axes before the last two, those of size 1 repeated; LayerError if they do not fit."""
    pairs = list(zip_longest(a[-3::-1], b[-3::-1], fillvalue=1))[::-1]
    if any(1 != first != second != 1 for first, second in pairs):
        raise LayerError(
            f"the axes before the last two must be equal or 1, got shapes {a} and {b}", "bottom.1"
        )
    return tuple(second if first == 1 else first for first, second in pairs)


@register("CosineSimilarity")
class CosineSimilarity(Layer):
    """y = a . b / (max(|a|, eps) max(|b|, eps)), the products and norms taken along ``axis`` (1).

    bottoms: a and b of one shape -> top of their shape without ``axis``. ``eps`` is 1e-8.

    Torch: ``F.cosine_similarity``, the same without broadcasting.
    """

    message_field = "cosine_similarity_param"
    bottoms = exactly(2)

    def __init__(self, axis: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.axis = axis
        self.eps = eps

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(a, b, self._axis(a.shape, b.shape), self.eps)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        shape, axis = bottoms[0], self._axis(*bottoms)
        return [(*shape[:axis], *shape[axis + 1 :])]

    def _axis(self, a: Shape, b: Shape) -> int:
        """The axis counted from the front; LayerError for bottoms that do not fit."""
        if a != b:
            raise LayerError(
                f"both bottoms must have one shape, got {tuple(a)} and {tuple(b)}", "bottom.1"
            )
        return canonical_axis(self.axis, len(a), "cosine_similarity_param.axis")


@register("Gather")
class Gather(Layer):
    """The slices of x at some indices of ``axis`` (0), in their order.

    bottoms: x, and indices of any shape, whole numbers from 0 held as floats -> top of x's shape
    with the axes of the indices in the place of ``axis``. Indices get no gradient. What torch calls
    index_select. BatchReindex is Caffe's layer of this kind, for the first axis.

    Torch: ``torch.index_select`` with indices of any shape; ``torch.gather`` picks single elements.
    """

    message_field = "gather_param"
    bottoms = exactly(2)

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        (shape,) = self.top_shapes(x.shape, indices.shape)
        y = x.index_select(self.axis, indices.detach().reshape(-1).long())
        return y.reshape(shape)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, indices = bottoms
        axis = canonical_axis(self.axis, len(x), "gather_param.axis")
        return [(*x[:axis], *indices, *x[axis + 1 :])]

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        return LabelRange(1, bottoms[0][self.axis])
