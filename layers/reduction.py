"""Reduction: sums over the last axes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..proto import caffe_pb2
from .base import Context, Layer, Shape, canonical_axis
from .registry import register

SUM: int = caffe_pb2.ReductionParameter.SUM
ASUM: int = caffe_pb2.ReductionParameter.ASUM
SUMSQ: int = caffe_pb2.ReductionParameter.SUMSQ
MEAN: int = caffe_pb2.ReductionParameter.MEAN


@register("Reduction")
class Reduction(Layer):
    """coeff times the SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN of x.

    All axes from ``axis`` (0) are reduced and vanish; the default SUM over all gives a single
    number. ``coeff`` is 1 by default.

    Torch: ``torch.sum`` and ``mean`` over all axes from ``axis`` on.
    """

    message_field = "reduction_param"

    def __init__(self, operation: int = SUM, axis: int = 0, coeff: float = 1.0) -> None:
        super().__init__()
        self.operation = operation
        self.axis = axis
        self.coeff = coeff

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Reduction:
        param = message.reduction_param
        axis = 0
        if param.axis != 0 or context.shapes[0]:
            axis = canonical_axis(param.axis, len(context.shapes[0]), "reduction_param.axis")
        return cls(param.operation, axis, param.coeff)

    def forward(self, x: Tensor) -> Tensor:
        if self.operation == ASUM:
            x = x.abs()
        elif self.operation == SUMSQ:
            x = x * x
        dims = x.dim()
        if self.axis < dims:
            # One axis is given as such, which takes torch less time to read.
            axes = self.axis if self.axis + 1 == dims else tuple(range(self.axis, dims))
            x = x.mean(axes) if self.operation == MEAN else x.sum(axes)
        return x if self.coeff == 1 else x * self.coeff

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [bottoms[0][: self.axis]]
