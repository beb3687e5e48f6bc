"""SPP: spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import TRAIN, Context, Layer, Shape
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

    def grids(self, shape: Shape) -> list[Grid]:
        """The windows of all levels over a bottom of ``shape``."""
        if len(shape) != 4:
            raise LayerError(
                f"the bottom must have 4 axes (N, C, H, W), got shape {tuple(shape)}", "bottom"
            )
        return [self.grid(number, shape[2], shape[3]) for number in range(self.pyramid_height)]

    def forward(self, x: Tensor) -> Tensor:
        levels = [pooled(x, grid, self.pool, self.sampling) for grid in self.grids(x.shape)]
        if self.pyramid_height == 1:
            return levels[0]
        return torch.cat([level.flatten(1) for level in levels], 1)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        bins = [grid.out for grid in self.grids(bottoms[0])]
        batch, channels = bottoms[0][:2]
        if self.pyramid_height == 1:
            return [(batch, channels, *bins[0])]
        return [(batch, channels * sum(map(prod, bins)))]
