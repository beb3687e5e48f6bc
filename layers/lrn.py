"""LRN: local response normalisation, across channels or within each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer
from .registry import register


@register("LRN")
class LRN(Layer):
    """Each value is divided by a power of the energy around it.

    bottom and top ``(N, C, H, W)``. ACROSS_CHANNELS: y = x * (k + alpha / n * sum x^2) ^ -beta over
    the ``local_size`` n channels around each. WITHIN_CHANNEL: y = x * (1 + alpha * mean x^2) ^
    -beta over the n x n pixels around each, zeros beyond the border; ``k`` has no effect there, as
    in Caffe. Defaults: n 5 (must be odd), alpha 1, beta 0.75, k 1. ``engine`` changes nothing.
    Krizhevsky et al. 2012.

    Torch: ``F.local_response_norm``, the same across channels but for the default of alpha; it has
    none within channels.
    """

    message_field = "lrn_param"
    allows_in_place = True

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
    """The normalisation across channels, which keeps only its input and the scale for backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, local_size: int, alpha: float, beta: float, k: float
    ) -> Tensor:
        scale = _channel_sum(x * x, local_size, alpha / local_size).add_(k)
        ctx.save_for_backward(x, scale)
        ctx.local_size, ctx.alpha, ctx.beta = local_size, alpha, beta
        return _inverse_power(scale, beta).mul_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # y_i = x_i s_i^-b, so dx_i = g_i s_i^-b - 2 a b / n * x_i * sum over j of g_j y_j / s_j.
        x, scale = ctx.saved_tensors
        direct = _inverse_power(scale, ctx.beta).mul_(grads[0])
        ratio = (direct * x).div_(scale)
        factor = -2.0 * ctx.alpha * ctx.beta / ctx.local_size
        across = _channel_sum(ratio, ctx.local_size, factor)
        return direct.addcmul_(x, across), None, None, None, None


#: Up to so many channels a product with a band matrix is the fastest window on a CPU.
BAND_CHANNELS = 192


def _channel_sum(x: Tensor, size: int, factor: float) -> Tensor:
    """``factor`` times the sum over the ``size`` channels around each, zeros beyond the last."""
    channels = x.shape[1]
    reach = min(size // 2, channels - 1)
    if x.device.type == "cpu" and channels <= BAND_CHANNELS and x.is_contiguous():
        band = x.new_full((channels, channels), factor).triu_(-reach).tril_(reach)
        return torch.matmul(band, x.flatten(2)).reshape(x.shape)
    total = x.clone()
    for shift in range(1, reach + 1):
        total[:, shift:] += x[:, :-shift]
        total[:, :-shift] += x[:, shift:]
    return total.mul_(factor)


def _inverse_power(scale: Tensor, beta: float) -> Tensor:
    """``scale`` ^ -``beta``; by roots where that is possible, in a fraction of the time of pow."""
    if beta == 0.75:
        root = scale.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return scale.rsqrt()
    return scale.reciprocal() if beta == 1 else scale.pow(-beta)
