"""For inference on a CPU: the maximum of overlapping windows along one axis after the other.

Torch's own pooling notes where each maximum was found and reads every window whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layers.pooling import MAX, Pooling
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
    return [running(step, SlidingMaximum(step.layer)) if _fits(step) else step for step in steps]


def _fits(step: Step) -> bool:
    layer: object = step.layer
    return (
        type(layer) is Pooling
        and plain(step)
        and layer.pool == MAX
        and not layer.with_mask
        and layer.stride == (1, 1)
        and layer.kernel is not None
        and all(2 * p < k <= size for p, k, size in _axes(layer, step))
    )


def _axes(layer: Pooling, step: Step) -> zip[tuple[int, int, int]]:
    return zip(layer.pad, layer.kernel or (), step.bottom_shapes[0][2:], strict=True)
