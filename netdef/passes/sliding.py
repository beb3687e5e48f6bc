"""For inference on a CPU: the maximum of overlapping windows along one axis after the other.

Torch's own pooling notes where each maximum was found and reads every window whole. Where there is
a kernel of ours for the blob (float32), that is faster than both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.native import pooling as kernels
from ...layers.pooling import MAX, Pooling, make_grid
from ..steps import Step
from .readers import plain, running


class SlidingMaximum:
    """MAX pooling with stride 1, of a bottom in channels-last memory."""

    def __init__(self, pooling: Pooling) -> None:
        assert pooling.kernel is not None
        self.pooling = pooling
        self.kernel = pooling.kernel
        self.pad = pooling.pad

    def __call__(self, x: Tensor) -> Tensor:
        grid = make_grid((x.shape[2], x.shape[3]), self.kernel, (1, 1), self.pad)
        plan = kernels.plan(x, grid)
        if plan is not None:
            return kernels.maximum(plan, x)
        if not x.is_contiguous(memory_format=torch.channels_last):
            y = self.pooling(x)
            assert isinstance(y, Tensor)
            return y
        for axis, kernel, pad in zip((2, 3), self.kernel, self.pad, strict=True):
            x = _maximum_along(x, axis, kernel, pad)
        return x


def _maximum_along(x: Tensor, axis: int, kernel: int, pad: int) -> Tensor:
    """The maximum of ``kernel`` neighbours along ``axis``, those beyond its ends left out."""
    size = x.shape[axis]
    count = size + 2 * pad - kernel + 1
    # Every window has the neighbour at ``pad`` inside, as 2 * pad < kernel.
    y = x.narrow(axis, 0, count).clone()
    for shift in range(-pad, kernel - pad):
        low, high = max(0, -shift), min(count, size - shift)
        if shift and low < high:
            part = y.narrow(axis, low, high - low)
            torch.maximum(part, x.narrow(axis, low + shift, high - low), out=part)
    return y


def slide_maxima(steps: Sequence[Step]) -> list[Step]:
    """``steps`` with every MAX pooling of overlapping windows at stride 1 along the axes."""
    result = list(steps)
    for index, step in enumerate(steps):
        layer: object = step.layer
        if type(layer) is Pooling and plain(step) and _fits(layer, step.bottom_shapes[0][2:]):
            result[index] = running(step, SlidingMaximum(layer))
    return result


def _fits(layer: Pooling, sizes: Shape) -> bool:
    if layer.pool != MAX or layer.with_mask or layer.stride != (1, 1) or layer.kernel is None:
        return False
    axes = zip(layer.pad, layer.kernel, sizes, strict=True)
    return all(2 * pad < kernel <= size for pad, kernel, size in axes)
