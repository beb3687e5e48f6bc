"""Eltwise: sum, product or maximum of several bottoms, element by element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import quirks
from .base import Context, Layer, Shape, at_least
from .registry import register

SUM: int = caffe_pb2.EltwiseParameter.SUM
PROD: int = caffe_pb2.EltwiseParameter.PROD
MAX: int = caffe_pb2.EltwiseParameter.MAX


@register("Eltwise")
class Eltwise(Layer):
    """SUM (default): y = sum of coeff_i * x_i; PROD: their product; MAX: their maximum.

    Two or more bottoms of one shape -> top of that shape. ``coeff`` (1 for each by default) works
    with SUM only. Of equal maxima, the second of the first two bottoms gets the gradient, and after
    that the earlier. ``stable_prod_grad`` changes nothing: the gradient of PROD is always the
    product of the other bottoms, never a quotient. SUM in place adds all bottoms, unless
    ``caffe_quirks`` of the net asks for Caffe's result.

    Torch: ``torch.add``, ``mul`` and ``maximum``; shapes must be equal, there is no broadcasting.
    """

    message_field = "eltwise_param"
    bottoms = at_least(2)
    allows_in_place = True

    def __init__(
        self,
        operation: int = SUM,
        coeff: tuple[float, ...] = (),
        *,
        quirk: bool = False,
    ) -> None:
        super().__init__()
        self.quirk = quirk
        self.operation = operation
        self.coeff = coeff

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Eltwise:
        param = message.eltwise_param
        coeff = tuple(param.coeff)
        if coeff and param.operation != SUM:
            raise LayerError("coeff works with operation SUM only", "eltwise_param.coeff")
        if coeff and len(coeff) != len(context.shapes):
            raise LayerError(
                f"there must be one coeff for each of the {len(context.shapes)} bottoms, "
                f"got {len(coeff)}",
                "eltwise_param.coeff",
            )
        if param.operation != SUM:
            quirks.refuse(context, "the products and maxima of Eltwise")
        return cls(param.operation, coeff, quirk=quirks.asked_for(context))

    def forward(self, *bottoms: Tensor) -> Tensor:
        y = bottoms[0]
        self.top_shapes(*(tuple(x.shape) for x in bottoms))
        if self.operation == SUM:
            return self._sum(bottoms)
        for index, x in enumerate(bottoms[1:]):
            if self.operation == PROD:
                y = y * x
            else:
                y = torch.where(y > x, y, x) if index == 0 else torch.where(x > y, x, y)
        return y

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        for index, shape in enumerate(bottoms):
            if shape != bottoms[0]:
                raise LayerError(
                    f"the bottoms must have one shape, got {bottoms[0]} and {shape}",
                    f"bottom.{index}",
                )
        return bottoms[:1]

    def _sum(self, bottoms: tuple[Tensor, ...]) -> Tensor:
        coeff = self.coeff or (1.0,) * len(bottoms)
        if self.quirk:
            summed: Tensor = quirks.SumInPlace.apply(coeff, *bottoms)
            return summed
        y = bottoms[0] if coeff[0] == 1 else bottoms[0] * coeff[0]
        for factor, x in zip(coeff[1:], bottoms[1:], strict=True):
            y = torch.add(y, x, alpha=factor)
        return y
