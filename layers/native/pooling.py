"""MAX and AVE pooling of channels-last blobs (``kernels/pooling.c``), float32 or bfloat16.

MAX keeps one byte for each maximum in place of torch's index of eight, and a gradient is written
once, where torch fills it with zeros and adds. Of equal values the first has the gradient, of
several NaN the last, as with torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import library
from .library import Function

if TYPE_CHECKING:
    from ..pooling import Grid

#: Channels from which on a pixel fills a vector, on every processor.
_LANES = 16
#: Pixels of the largest window: their numbers fit in a byte.
_MOST_PIXELS = 256
#: Numbers in the bottom from which on threads share the work.
_SHARED = 1 << 15


@dataclass(frozen=True, slots=True)
class Plan:
    """A pooling of bottoms of one type and shape: the shapes of both ends, the numbers and
    functions that the kernels take."""

    dtype: torch.dtype
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    geometry: Any
    maximum: Function
    maximum_gradient: Function
    average: Function
    average_gradient: Function

    def places(self, which: Tensor) -> Tensor:
        """Where in its plane of the bottom each maximum is, from its number in its window."""
        _, out_rows, _, down, top, width, columns, kernel, across, left = self.geometry[3:]
        rows = torch.arange(out_rows)[:, None] * down - top + which // kernel
        return rows * width + torch.arange(columns) * across - left + which % kernel

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A blob of this shape, its memory as it is."""
        return torch.empty(shape, dtype=self.dtype, memory_format=torch.channels_last)


def plan(x: Tensor, grid: Grid) -> Plan | None:
    """How to pool ``x`` (N, C, H, W) over ``grid``; None where torch must do it."""
    if not library.suits(x, dtypes=library.NUMBERS):
        return None
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    return _planned(tuple(x.shape), x.dtype, grid, torch.get_num_threads())


@lru_cache(maxsize=1024)
def _planned(shape: tuple[int, ...], dtype: torch.dtype, grid: Grid, threads: int) -> Plan | None:
    images, channels = shape[:2]
    # What torch makes with padding of its own are windows with a pixel each.
    if channels < _LANES or images < 1 or prod(grid.kernel) > _MOST_PIXELS or grid.native() is None:
        return None
    functions = [
        library.function("pooling", f"pooling_{name}", signature, dtype)
        for name, signature in (
            ("maximum", "pppn"),
            ("maximum_gradient", "pppn"),
            ("average", "ppn"),
            ("average_gradient", "ppn"),
        )
    ]
    found = [each for each in functions if each is not None]
    if len(found) < len(functions):
        return None
    axes = zip(grid.sizes, grid.out, grid.kernel, grid.stride, grid.pad, strict=True)
    team = threads if prod(shape) >= _SHARED else 1
    geometry = library.numbers(images, channels, team, *(value for axis in axes for value in axis))
    return Plan(dtype, shape, (images, channels, *grid.out), geometry, *found)


def maximum(plan: Plan, x: Tensor) -> Tensor:
    """The largest value of each window, channels-last."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        y = plan.empty(plan.top)
        plan.maximum(x, y, None, plan.geometry)
        return y
    return _Maximum.apply(x, plan)


def average(plan: Plan, x: Tensor) -> Tensor:
    """The sum of each window over its size, clipped to the padded bottom, channels-last."""
    return _Average.apply(x, plan)


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        y = plan.empty(plan.top)
        which = torch.empty_like(y, dtype=torch.uint8)
        plan.maximum(x, y, which, plan.geometry)
        ctx.save_for_backward(which)
        ctx.plan = plan
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (which,) = ctx.saved_tensors
        return _MaximumGradient.apply(grads[0], which, ctx.plan), None


class _MaximumGradient(torch.autograd.Function):
    """The gradient of a maximum for its bottom, which is linear in that of its top."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, which: Tensor, plan: Plan) -> Tensor:
        result = plan.empty(plan.bottom)
        grad = grad.contiguous(memory_format=torch.channels_last)
        plan.maximum_gradient(grad, which, result, plan.geometry)
        ctx.save_for_backward(which)
        ctx.plan = plan
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (which,), plan = ctx.saved_tensors, ctx.plan
        places = plan.places(which).flatten(2).long()
        return grads[0].flatten(2).gather(2, places).view(plan.top), None, None


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        y = plan.empty(plan.top)
        plan.average(x, y, plan.geometry)
        ctx.plan = plan
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _AverageGradient.apply(grads[0], ctx.plan), None


class _AverageGradient(torch.autograd.Function):
    """The gradient of an average for its bottom; its own is the average again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, plan: Plan) -> Tensor:
        result = plan.empty(plan.bottom)
        grad = grad.contiguous(memory_format=torch.channels_last)
        plan.average_gradient(grad, result, plan.geometry)
        ctx.plan = plan
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        return _Average.apply(grad, ctx.plan), None
