"""SPP: spatial pyramid pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import TRAIN, Context, Layer
from .pooling import Grid, make_grid, pooled
from .registry import register


@register("SPP")
class SPP(Layer):
    """Pooling into 1, 2 x 2, 4 x 4 … bins, whatever the bottom's size, joined as one vector.

    bottom ``(N, C, H, W)`` -> top ``(N, C * (4 ^ pyramid_height - 1) / 3)``, or ``(N, C, 1, 1)``
    for a ``pyramid_height`` of 1. Level l has windows of ceil(H / 2^l), its padding spread over
    both sides; ``pool`` as in Pooling. ``engine`` changes nothing. He et al. 2014.

    Torch: has none; concatenated ``F.max_pool2d`` of a pyramid.
    """

    message_field = "spp_param"

    def __init__(self, pyramid_height: int, pool: int, phase: int = TRAIN) -> None:
        super().__init__()
        self.pyramid_height = pyramid_height
        self.pool = pool
        self.sampling = phase == TRAIN

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> SPP:
        param = message.spp_param
        if not 1 <= param.pyramid_height <= 30:
            raise LayerError(
                f"pyramid_height must be from 1 to 30, got {param.pyramid_height}",
                "spp_param.pyramid_height",
            )
        return cls(param.pyramid_height, param.pool, context.phase)

    def grid(self, number: int, height: int, width: int) -> Grid:
        """The windows that make 2^number x 2^number bins."""
        bins = 2**number
        kernel = (-(-height // bins), -(-width // bins))
        pad = ((kernel[0] * bins - height + 1) // 2, (kernel[1] * bins - width + 1) // 2)
        if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
            raise LayerError(
                f"a bottom of {height} x {width} is too small for {bins} x {bins} bins",
                "spp_param.pyramid_height",
            )
        return make_grid((height, width), kernel, kernel, pad)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise LayerError(
                f"the bottom must have 4 axes (N, C, H, W), got shape {tuple(x.shape)}", "bottom"
            )
        levels = [
            pooled(x, self.grid(number, x.shape[2], x.shape[3]), self.pool, self.sampling)
            for number in range(self.pyramid_height)
        ]
        if self.pyramid_height == 1:
            return levels[0]
        return torch.cat([level.flatten(1) for level in levels], 1)
