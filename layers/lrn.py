"""LRN: local response normalisation, across channels or within each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer
from .registry import register


#: Values of one tensor that are worked on at a time on the CPU.
_IN_CACHE = 1 << 18


@register("LRN")
class LRN(Layer):
    """Each value is divided by a power of the energy around it.

    bottom and top ``(N, C, H, W)``. ACROSS_CHANNELS: y = x * (k + alpha / n * sum x^2) ^ -beta over
    the ``local_size`` n channels around each. WITHIN_CHANNEL: y = x * (1 + alpha * mean x^2) ^
    -beta over the n x n pixels around each, zeros beyond the border; ``k`` has no effect there, as
    in Caffe. Defaults: n 5 (must be odd), alpha 1, beta 0.75, k 1. ``engine`` changes nothing.
    Krizhevsky et al. 2012.
    """

    message_field = "lrn_param"

    def __init__(
        self,
        local_size: int = 5,
        alpha: float = 1.0,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        within_channel: bool = False,
    ) -> None:
        super().__init__()
        self.local_size = local_size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.within_channel = within_channel

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> LRN:
        param = message.lrn_param
        if param.local_size % 2 == 0:
            raise LayerError(
                f"local_size must be odd, got {param.local_size}", "lrn_param.local_size"
            )
        return cls(
            param.local_size,
            param.alpha,
            param.beta,
            param.k,
            within_channel=param.norm_region == caffe_pb2.LRNParameter.WITHIN_CHANNEL,
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise LayerError(
                f"the bottom must have 4 axes (N, C, H, W), got shape {tuple(x.shape)}", "bottom"
            )
        if self.within_channel:
            size = self.local_size
            energy = F.avg_pool2d(x * x, size, 1, size // 2)
            return x * _inverse_power(energy * self.alpha + 1.0, self.beta)
        y: Tensor = _AcrossChannels.apply(x, self.local_size, self.alpha, self.beta, self.k)
        return y


class _AcrossChannels(torch.autograd.Function):
    """The normalisation across channels, which keeps only its input and the scale for backward.

    It works on a few images at a time, so that what lies between the passes over them stays in the
    processor's cache; a GPU takes them all at once.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, local_size: int, alpha: float, beta: float, k: float
    ) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        scale, y = torch.empty_like(x, dtype=wide), torch.empty_like(x)
        for part, scaled, out in _portions(x, scale, y):
            part = part.to(wide)
            _channel_sum(part * part, local_size, scaled)
            scaled.mul_(alpha / local_size).add_(k)
            out.copy_(_inverse_power(scaled, beta).mul_(part))
        ctx.save_for_backward(x, scale)
        ctx.local_size, ctx.alpha, ctx.beta = local_size, alpha, beta
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # y_i = x_i s_i^-b, so dx_i = g_i s_i^-b - 2 a b / n * x_i * sum over j of g_j y_j / s_j.
        x, scale = ctx.saved_tensors
        factor = -2.0 * ctx.alpha * ctx.beta / ctx.local_size
        result = torch.empty_like(x)
        for part, scaled, grad, out in _portions(x, scale, grads[0], result):
            part = part.to(scaled.dtype)
            direct = _inverse_power(scaled, ctx.beta).mul_(grad)
            ratio = (direct * part).div_(scaled)
            across = _channel_sum(ratio, ctx.local_size, torch.empty_like(ratio))
            out.copy_(direct.addcmul_(part, across, value=factor))
        return result, None, None, None, None


def _portions(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few images of each of ``tensors``, all images in turn."""
    first = tensors[0]
    if first.device.type != "cpu" or torch.compiler.is_compiling() or first.shape[0] == 0:
        yield tensors
        return
    images = max(1, _IN_CACHE // max(1, first[0].numel()))
    yield from zip(*(each.split(images) for each in tensors), strict=True)


def _channel_sum(x: Tensor, size: int, total: Tensor) -> Tensor:
    """Into ``total``: the sum over the ``size`` channels around each, zeros beyond the borders."""
    total.copy_(x)
    for shift in range(1, min(size // 2, x.shape[1] - 1) + 1):
        total[:, shift:] += x[:, :-shift]
        total[:, :-shift] += x[:, shift:]
    return total


def _inverse_power(scale: Tensor, beta: float) -> Tensor:
    """``scale`` ^ -``beta``; roots where they do, as they take a fraction of the time of pow."""
    if beta == 0.75:
        root = scale.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return scale.rsqrt()
    return scale.reciprocal() if beta == 1 else scale.pow(-beta)
