"""Convolutions over 3x3 and 5x5 windows by Winograd's minimal filtering (``kernels/winograd.c``).

They take a fourth to a half of the products of a direct convolution, all in float32; the rounding
errors of the top and of the gradients are about as large (tests/layers/native/test_winograd.py).
Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import library

#: Channels that each side of a group must have a multiple of: lanes of the widest vectors.
_LANES = 16
#: Columns of a panel of filters, to which counts of channels are rounded up.
_PANEL = 32
#: Pixels of zeros that lie around images.
_MOST_CHANNELS = 8192

# What a thread takes for one of each, in nanoseconds, as fitted on a processor with AVX-512: only
# their proportions matter, to choose the fastest way.
_DIRECT_PRODUCT = 0.0129
_PRODUCT = 0.0133
_TILE_POINT = 0.25
#: By whether each thread holds all points of the filters or they are many, and shared.
_FILTER_POINT = {False: 0.3, True: 0.9}
#: A way must be faster than the direct convolution by this to be taken, so that it is.
_MARGIN = 0.9

#: Filters with more points than this are shared by the threads, each of which would read them all.
_SHARED_POINTS = 1 << 20
#: Points of tiles that stay in a thread's cache, and tiles of a shared block.
_CACHED_POINTS = 1 << 17
_SHARED_TILES = 64


@dataclass(frozen=True, slots=True)
class Case:
    """F(out x out, taps x taps), on tiles of ``tile`` x ``tile``."""

    out: int
    taps: int

    @property
    def tile(self) -> int:
        return self.out + self.taps - 1

    @property
    def points(self) -> int:
        return self.tile**2

    def run(self, operation: str, signature: str, *arguments: Any) -> None:
        name = f"winograd_{self.out}_{self.taps}_{operation}"
        found = library.function("winograd", name, signature)
        assert found is not None  # plan() has seen to it
        found(*arguments)


CASES = (Case(4, 3), Case(2, 3), Case(2, 5))


@dataclass(frozen=True, slots=True)
class Problem:
    """One convolution of one group: ``channels`` of ``x_step`` in a pixel to ``outputs`` of
    ``y_step``, at stride 1."""

    images: int
    height: int
    width: int
    pad: int
    channels: int
    outputs: int
    taps: int
    group: int

    @property
    def top(self) -> tuple[int, int]:
        more = 2 * self.pad - self.taps + 1
        return self.height + more, self.width + more

    def turned(self) -> Problem:
        """The convolution that gives the gradient of the bottom."""
        height, width = self.top
        pad = self.taps - 1 - self.pad
        return Problem(
            self.images, height, width, pad, self.outputs, self.channels, self.taps, self.group
        )

    def tiles(self, case: Case) -> int:
        return self.images * -(-self.top[0] // case.out) * -(-self.top[1] // case.out)

    def fastest(self) -> Case | None:
        """The case that takes the least time by estimate, None for the direct convolution."""
        products = self.images * self.top[0] * self.top[1] * self.taps**2
        least = products * self.channels * self.outputs * _DIRECT_PRODUCT * _MARGIN
        best = None
        for case in CASES:
            if case.taps == self.taps and (taken := self._nanoseconds(case)) < least:
                least, best = taken, case
        return best

    def _nanoseconds(self, case: Case) -> float:
        tile_points = self.tiles(case) * case.points
        outputs = _up(self.outputs, _PANEL)
        return (
            tile_points * self.channels * outputs * _PRODUCT
            + tile_points * (self.channels + outputs) * _TILE_POINT
            + case.points * self.channels * outputs * _FILTER_POINT[self.shares(case)]
        )

    def shares(self, case: Case) -> bool:
        """Whether the threads do one block of tiles together, rather than each its own."""
        return case.points * self.channels * self.outputs > _SHARED_POINTS

    def block(self, case: Case, threads: int) -> int:
        """Tiles that are done at a time, by one thread or by all: for each about as many."""
        tiles, shared = self.tiles(case), self.shares(case)
        most = _CACHED_POINTS // (case.points * (self.channels + self.outputs))
        most = _SHARED_TILES if shared else max(24, min(96, most))
        team = 1 if shared else threads
        rounds = -(-tiles // (most * team))
        return _up(-(-tiles // (rounds * team)), 8)

    def geometry(self) -> Any:
        given = (self.images, self.height, self.width, self.pad, self.channels, self.outputs)
        return library.numbers(*given, self.channels * self.group, self.outputs * self.group)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a convolution is computed: the case for its top, for the gradient of its bottom and for
    that of its filters; None is torch's own way."""

    problem: Problem
    threads: int
    forward: Case | None
    bottom: Case | None
    filters: Case | None


def plan(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    group: int,
) -> Plan | None:
    """How to convolve ``x`` (N, C, H, W) with ``weight`` (K, C / group, taps, taps), both
    channels-last; None where torch's way is the fastest or the only one."""
    taps = weight.shape[-1]
    if weight.dim() != 4 or weight.shape[2] != taps or taps not in (3, 5):
        return None
    if any(each != 1 for each in (*stride, *dilation)) or pad[0] != pad[1] or pad[0] >= taps:
        return None
    if not library.suits(x, weight):
        return None
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    if not weight.is_contiguous(memory_format=torch.channels_last):
        return None
    return _planned(tuple(x.shape), weight.shape[0], taps, pad[0], group, torch.get_num_threads())


@cache
def _planned(
    shape: tuple[int, ...], outputs: int, taps: int, pad: int, group: int, threads: int
) -> Plan | None:
    images, channels, height, width = shape
    if channels // group % _LANES or outputs // group % _LANES or channels > _MOST_CHANNELS:
        return None
    problem = Problem(images, height, width, pad, channels // group, outputs // group, taps, group)
    if min(*problem.top, images) < 1:
        return None
    forward, bottom = problem.fastest(), problem.turned().fastest()
    if forward is None and bottom is None:
        return None
    if library.function("winograd", "winograd_4_3_filters", "piipi") is None:
        return None
    return Plan(problem, threads, forward, bottom, forward)


def convolve(plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The top (N, K, H', W') of a planned convolution, channels-last."""
    y: Tensor = _Convolution.apply(x, weight, bias, plan)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.plan, ctx.bias_shape = plan, None if bias is None else list(bias.shape)
        if plan.forward is None:
            pad, group = plan.problem.pad, plan.problem.group
            return torch.conv2d(x, weight, bias, padding=pad, groups=group)
        return _filter(plan.problem, plan.forward, plan.threads, x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        plan: Plan = ctx.plan
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        wants = list(ctx.needs_input_grad[:3])
        results: list[Tensor | None] = [None, None, None]
        if wants[0] and plan.bottom is not None:
            problem = plan.problem.turned()
            results[0] = _filter(problem, plan.bottom, plan.threads, grad, weight, turned=True)
        if wants[1] and plan.filters is not None:
            results[1] = _filters_gradient(plan.problem, plan.filters, plan.threads, x, grad)
        if wants[2]:
            results[2] = grad.sum((0, 2, 3))
        left = [want and result is None for want, result in zip(wants, results, strict=True)]
        if any(left):
            pads, group = [plan.problem.pad] * 2, plan.problem.group
            rest = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], pads, [1, 1], False, [0, 0], group, left
            )
            results = [a if a is not None else b for a, b in zip(results, rest, strict=True)]
        return (*results, None)


def _filter(
    problem: Problem,
    case: Case,
    threads: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    turned: bool = False,
) -> Tensor:
    """The top for the bottom ``x``, or, ``turned``, the bottom's gradient for the top's."""
    channels, outputs = problem.channels, problem.outputs
    shape = (problem.images, outputs * problem.group, *problem.top)
    y = torch.empty(shape, memory_format=torch.channels_last)
    block, shared = problem.block(case, threads), problem.shares(case)
    columns = _up(outputs, _PANEL)
    points = torch.empty(case.points * channels * columns)
    room = _room(case, block * (channels + columns), shared, threads)
    zeros, geometry = _zeros(), problem.geometry()
    for index in range(problem.group):
        filters = _at(weight, index * problem.outputs * problem.channels * problem.taps**2)
        if turned:
            case.run("turned_filters", "piipi", filters, outputs, channels, _at(points), threads)
        else:
            case.run("filters", "piipi", filters, channels, outputs, _at(points), threads)
        case.run(
            "convolve",
            "ppppppniii",
            _at(x, index * channels),
            _at(points),
            None if bias is None else _at(bias, index * outputs),
            _at(zeros),
            _at(y, index * outputs),
            _at(room),
            geometry,
            block,
            shared,
            threads,
        )
    return y


def _filters_gradient(
    problem: Problem, case: Case, threads: int, x: Tensor, grad: Tensor
) -> Tensor:
    channels, outputs, taps = problem.channels, problem.outputs, problem.taps
    shape = (outputs * problem.group, channels, taps, taps)
    result = torch.empty(shape, memory_format=torch.channels_last)
    block, shared = problem.block(case, threads), problem.shares(case)
    columns = _up(channels, _PANEL)
    room = _room(case, block * (outputs + columns) + outputs * columns, shared, threads)
    zeros, geometry = _zeros(), problem.geometry()
    for index in range(problem.group):
        case.run(
            "filters_gradient",
            "pppppniii",
            _at(x, index * channels),
            _at(grad, index * outputs),
            _at(zeros),
            _at(result, index * outputs * channels * taps**2),
            _at(room),
            geometry,
            block,
            shared,
            threads,
        )
    return result


def _room(case: Case, points: int, shared: bool, threads: int) -> Tensor:
    """Memory for the arrays of points of all threads."""
    return torch.empty(case.points * (points + 2 * _LANES) * (1 if shared else threads))


@cache
def _zeros() -> Tensor:
    return torch.zeros(_MOST_CHANNELS)


def _at(tensor: Tensor, index: int = 0) -> int:
    return tensor.data_ptr() + 4 * index


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
