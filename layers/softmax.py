"""Softmax: scores to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proto import caffe_pb2
from .base import Context, Layer, canonical_axis
from .registry import register


@register("Softmax")
class Softmax(Layer):
    """y = exp(x) / sum of exp(x) along ``axis`` (1). ``engine`` changes nothing.

    Torch: ``torch.softmax`` on axis 1.
    """

    message_field = "softmax_param"
    allows_in_place = True
    keeps_shape = True

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Softmax:
        dimensions = len(context.shapes[0])
        return cls(canonical_axis(message.softmax_param.axis, dimensions, "softmax_param.axis"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, self.axis)
