"""MVN: mean and variance normalisation of each image or channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import quirks
from .base import Context, Layer, Shape
from .registry import register


@register("MVN")
class MVN(Layer):
    """y = (x - mean) / (std + eps) over each channel of each image; ``eps`` is 1e-9.

    ``across_channels`` takes the whole image; with ``normalize_variance`` false only the mean is
    subtracted. The bottom has up to 4 axes, and the top always 4: ``(N, C, H, W)``. The gradient
    is Caffe's, that of a denominator without eps.

    Torch: ``F.instance_norm``, which adds eps to the variance, not to the standard deviation.
    """

    message_field = "mvn_param"
    allows_in_place = True

    def __init__(
        self,
        *,
        normalize_variance: bool = True,
        across_channels: bool = False,
        eps: float = 1e-9,
    ) -> None:
        super().__init__()
        self.normalize_variance = normalize_variance
        self.across_channels = across_channels
        self.eps = eps

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> MVN:
        param = message.mvn_param
        if param.normalize_variance:
            quirks.refuse(context, "MVN")
        return cls(
            normalize_variance=param.normalize_variance,
            across_channels=param.across_channels,
            eps=param.eps,
        )

    def forward(self, x: Tensor) -> Tensor:
        (shape,) = self.top_shapes(x.shape)
        x = x.reshape(shape)
        axes = (1, 2, 3) if self.across_channels else (2, 3)
        if not self.normalize_variance:
            return x - x.mean(axes, keepdim=True)
        y: Tensor = _Normalize.apply(x, axes, self.eps)
        return y

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        if not 1 <= len(shape) <= 4:
            raise LayerError(
                f"the bottom must have 1 to 4 axes, got shape {tuple(shape)}", "bottom"
            )
        return [(*shape, *[1] * (4 - len(shape)))]


class _Normalize(torch.autograd.Function):
    """Forward and backward of MVN; keeps the top and the denominators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        inverse = variance.sqrt_().add_(eps).reciprocal_()
        y = (x - mean).mul_(inverse)
        ctx.save_for_backward(y, inverse)
        ctx.axes = axes
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, inverse = ctx.saved_tensors
        grad = grads[0]
        along = (grad * y).mean(ctx.axes, keepdim=True)
        result = grad - grad.mean(ctx.axes, keepdim=True)
        return result.addcmul_(y, along, value=-1).mul_(inverse), None, None
