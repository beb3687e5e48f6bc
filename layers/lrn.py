"""LRN: local response normalisation, across channels or within each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import quirks
from .base import Context, Layer, Shape
from .native import lrn as kernels
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
        quirks.refuse(context, "LRN")
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
        self.top_shapes(tuple(x.shape))
        if self.within_channel:
            size = self.local_size
            energy = F.avg_pool2d(x * x, size, 1, size // 2)
            return x * _inverse_power(energy * self.alpha + 1.0, self.beta)
        if torch.compiler.is_compiling():  # which finds the gradient and fuses by itself
            scale = _sum_around(x * x, self.local_size) * (self.alpha / self.local_size) + self.k
            return x * _inverse_power(scale, self.beta)
        plan = kernels.plan(x, self.local_size, self.alpha, self.beta, self.k)
        if plan is not None:
            return kernels.normalise(plan, x)
        y: Tensor = _AcrossChannels.apply(x, self.local_size, self.alpha, self.beta, self.k)
        return y

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        if len(bottoms[0]) != 4:
            raise LayerError(
                f"the bottom must have 4 axes (N, C, H, W), got shape {bottoms[0]}", "bottom"
            )
        return bottoms


class _AcrossChannels(torch.autograd.Function):
    """The normalisation across channels by torch's operations, where no kernel does it; keeps only
    its input and the scale for backward.

    A CPU takes a few pixels at a time, so that what lies between the operations stays in its cache.
    Scale and sums are float32 at least, also for inputs of less precision.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, local_size: int, alpha: float, beta: float, k: float
    ) -> Tensor:
        scale = torch.empty_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        y = torch.empty_like(x)
        window = _window(scale, local_size, alpha / local_size, k)
        for part, scaled, out in _portions(x, scale, y):
            part = part.to(scaled.dtype)
            window(part * part, scaled)
            torch.mul(_inverse_power(scaled, beta), part, out=out)
        ctx.save_for_backward(x, scale)
        ctx.local_size, ctx.alpha, ctx.beta = local_size, alpha, beta
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # y_i = x_i s_i^-b, so dx_i = g_i s_i^-b - 2 a b / n * x_i * sum over j of g_j y_j / s_j.
        x, scale = ctx.saved_tensors
        result = torch.empty_like(x)
        factor = -2.0 * ctx.alpha * ctx.beta / ctx.local_size
        window = _window(scale, ctx.local_size, factor)
        for part, scaled, grad, out in _portions(x, scale, grads[0], result):
            part = part.to(scaled.dtype)
            direct = _inverse_power(scaled, ctx.beta).mul_(grad)
            across = out if out.dtype == scaled.dtype else torch.empty_like(direct)
            window((direct * part).div_(scaled), across)
            torch.addcmul(direct, part, across, out=out)
        return result, None, None, None, None


#: Numbers that each thread works on at a time: few enough for some arrays of them to stay in its
#: cache, so many that threads seldom wait for one another.
_IN_CACHE = 1 << 17
#: Channels that one product with a band matrix gives: more would multiply with more zeros.
_BAND = 64


def _portions(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same pixels of each of ``tensors``, with the channels on axis 1."""
    if tensors[0].device.type != "cpu":
        yield tensors
        return
    pixels = max(1, _IN_CACHE * torch.get_num_threads() // tensors[0].shape[1])
    if all(each.is_contiguous(memory_format=torch.channels_last) for each in tensors):
        rows = [each.movedim(1, -1).flatten(0, 2) for each in tensors]
        yield from zip(*(each.split(pixels) for each in rows), strict=True)
        return
    for images in zip(*tensors, strict=True):
        yield tuple(each.flatten(1).t() for each in images)


def _window(
    like: Tensor, size: int, factor: float, offset: float = 0.0
) -> Callable[[Tensor, Tensor], None]:
    """A function that puts into its second tensor ``offset`` plus ``factor`` times the sum over the
    ``size`` channels around each of its first; both are portions of tensors like the given."""
    if like.device.type != "cpu":
        return lambda x, total: _put_sum(x, total, size, factor, offset)
    channels = like.shape[1]
    reach = min(size // 2, channels - 1)
    band = like.new_full((channels, channels), factor).triu_(-reach).tril_(reach)
    start = like.new_full((1,), offset)
    count = max(1, round(channels / _BAND))
    edges = [channels * number // count for number in range(count + 1)]

    def by_products(x: Tensor, total: Tensor) -> None:
        for first, last in pairwise(edges):
            seen = slice(max(0, first - reach), last + reach)
            torch.addmm(start, x[:, seen], band[seen, first:last], out=total[:, first:last])

    return by_products


def _put_sum(x: Tensor, total: Tensor, size: int, factor: float, offset: float) -> None:
    torch.mul(_sum_around(x, size), factor, out=total).add_(offset)


def _sum_around(x: Tensor, size: int) -> Tensor:
    """The sum over the ``size`` channels around each, zeros beyond the first and the last."""
    channels, reach = x.shape[1], size // 2
    padded = F.pad(x, (0, 0, 0, 0, reach, reach))
    total = padded[:, :channels]
    for shift in range(1, size):
        total = total + padded[:, shift : shift + channels]
    return total


def _inverse_power(scale: Tensor, beta: float) -> Tensor:
    """``scale`` ^ -``beta``; by roots where that is possible, in a fraction of the time of pow."""
    if beta == 0.75:
        root = scale.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return scale.rsqrt()
    return scale.reciprocal() if beta == 1 else scale.pow(-beta)
