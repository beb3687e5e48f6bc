"""Im2col: the windows of a convolution, laid out as columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ..proto import caffe_pb2
from .base import Context, Layer, Shape
from .registry import register
from .windows import Windows


@register("Im2col")
class Im2col(Layer):
    """Each window of the bottom becomes a column of channels * prod(kernel) values.

    bottom ``(..., channels, *spatial)`` -> top ``(..., channels * prod(kernel), *out)`` with the
    windows, fields and sizes of Convolution (its ``convolution_param``; ``num_output`` and what
    else concerns weights has no meaning here).

    Torch: ``F.unfold``, but the windows keep their axes, and any number of spatial axes works.
    """

    message_field = "convolution_param"

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        self.windows = windows

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Im2col:
        return cls(Windows.from_message(message.convolution_param, context.shapes[0]))

    def forward(self, x: Tensor) -> Tensor:
        axis = self.windows.axis
        self.windows.check_fit(x.shape[axis + 1 :])
        y = self.windows.columns(x.reshape(-1, *x.shape[axis:]))
        return y.reshape(*x.shape[:axis], *y.shape[1:])

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,), axis = bottoms, self.windows.axis
        rows = shape[axis] * prod(self.windows.kernel)
        return [(*shape[:axis], rows, *self.windows.convolved(shape[axis + 1 :]))]
