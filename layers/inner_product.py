"""InnerProduct: the fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import Context, Layer, Shape, canonical_axis
from .fillers import Filler
from .linear import Taker, linear
from .registry import register


@register("InnerProduct")
class InnerProduct(Layer):
    """y = W x + b, where x holds all axes from ``axis`` (1 by default) as one vector.

    bottom ``(..., axes from axis)`` -> top ``(..., num_output)``. Blobs: ``weight``
    ``(num_output, inputs)``, or ``(inputs, num_output)`` with ``transpose``; ``bias``
    ``(num_output)`` unless ``bias_term`` is false.

    Torch: ``F.linear``, which takes the last axis only; here all axes from ``axis`` are one.
    """

    message_field = "inner_product_param"

    weight: Tensor
    bias: Tensor
    #: Who takes the factors of the weights' gradient in its place, while a pass lasts.
    taker: Taker | None = None

    def __init__(
        self,
        inputs: int,
        num_output: int,
        *,
        bias_term: bool = True,
        axis: int = 1,
        transpose: bool = False,
        weight_filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.inputs = inputs
        self.num_output = num_output
        self.transpose = transpose
        self.bias_term = bias_term
        shape = (inputs, num_output) if transpose else (num_output, inputs)
        self.add_blob("weight", shape, weight_filler)
        if bias_term:
            self.add_blob("bias", (num_output,), bias_filler)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> InnerProduct:
        param = message.inner_product_param
        if param.num_output == 0:
            raise LayerError("num_output must be given and positive", "inner_product_param")
        shape = context.shapes[0]
        axis = canonical_axis(param.axis, len(shape), "inner_product_param.axis")
        return cls(
            prod(shape[axis:]),
            param.num_output,
            bias_term=param.bias_term,
            axis=axis,
            transpose=param.transpose,
            weight_filler=fillers.from_message(
                param.weight_filler, "inner_product_param.weight_filler"
            ),
            bias_filler=fillers.from_message(param.bias_filler, "inner_product_param.bias_filler"),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.top_shapes(tuple(x.shape))
        weight = self.weight.t() if self.transpose else self.weight
        bias = self.bias if self.bias_term else None
        return linear(x.flatten(self.axis), weight, bias, self.taker)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        if prod(bottoms[0][self.axis :]) != self.inputs:
            raise LayerError(
                f"the axes from {self.axis} must hold {self.inputs} values, as when the layer was "
                f"built; got shape {bottoms[0]}"
            )
        return [(*bottoms[0][: self.axis], self.num_output)]

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return prod(bottoms[0][: self.axis]) * self.weight.numel()
