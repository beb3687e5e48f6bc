"""MatMul, CosineSimilarity and Gather: two blobs of which neither is a weight."""

from __future__ import annotations

from collections.abc import Sequence
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
        if a.dim() < 2 or b.dim() < 2:
            raise LayerError(
                f"both bottoms must have at least 2 axes, got shapes {tuple(a.shape)} and "
                f"{tuple(b.shape)}",
                "bottom",
            )
        left = a.transpose(-2, -1) if self.transpose_a else a
        right = b.transpose(-2, -1) if self.transpose_b else b
        if left.shape[-1] != right.shape[-2]:
            raise LayerError(
                f"matrices of shapes {tuple(left.shape[-2:])} and {tuple(right.shape[-2:])} have "
                "no product",
                "bottom.1",
            )
        return torch.matmul(left, right)

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        inner = bottoms[0][-2 if self.transpose_a else -1]
        return prod(tops[0]) * inner


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
        if a.shape != b.shape:
            raise LayerError(
                f"both bottoms must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}",
                "bottom.1",
            )
        axis = canonical_axis(self.axis, a.dim(), "cosine_similarity_param.axis")
        return F.cosine_similarity(a, b, axis, self.eps)


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
        axis = canonical_axis(self.axis, x.dim(), "gather_param.axis")
        y = x.index_select(axis, indices.detach().reshape(-1).long())
        return y.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        return LabelRange(1, bottoms[0][self.axis])
