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
_MOST_CHANNELS = 8192
#: Floats between the arrays of two points (SPARE in the kernels).
_SPARE = 16

# What a thread takes for one of each, in nanoseconds, as fitted on a processor with AVX-512: only
# their proportions matter, to choose the fastest way.
_DIRECT_PRODUCT = 0.0129
_DIRECT_FILTER = 1.0
_PRODUCT = 0.0133
_TILE_POINT = 0.25
#: Finding it and reading it, or reading it alone; by whether each thread holds all points of the
#: filters or they are many, and shared.
_FILTER_POINT = {False: 0.3, True: 0.9}
_KEPT_FILTER_POINT = {False: 0.3, True: 0.8}
#: A way must be faster than the direct convolution by this to be taken, so that it is.
_MARGIN = 0.9

#: Filters with more points than this are shared by the threads, each of which would read them all.
_SHARED_POINTS = 1 << 20
#: Points of tiles that stay in a thread's cache, and tiles of a shared block.
_CACHED_POINTS = 1 << 17
_SHARED_TILES = 64


Sizes = tuple[int, ...]


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

    def fastest(self, kept: bool = False) -> Case | None:
        """The case that takes the least time by estimate, None for the direct convolution.

        ``kept``: the points of the filters are found once for many passes.
        """
        products = self.images * self.top[0] * self.top[1] * self.taps**2
        filters = self.channels * self.outputs
        least = filters * (products * _DIRECT_PRODUCT + self.taps**2 * _DIRECT_FILTER) * _MARGIN
        best = None
        for case in CASES:
            if case.taps == self.taps and (taken := self._nanoseconds(case, kept)) < least:
                least, best = taken, case
        return best

    def _nanoseconds(self, case: Case, kept: bool) -> float:
        filter_point = (_KEPT_FILTER_POINT if kept else _FILTER_POINT)[self.shares(case)]
        tile_points = self.tiles(case) * case.points
        outputs = _up(self.outputs, _PANEL)
        return (
            tile_points * self.channels * outputs * _PRODUCT
            + tile_points * (self.channels + outputs) * _TILE_POINT
            + case.points * self.channels * outputs * filter_point
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
    forward: Case | None
    bottom: Case | None
    filters: Case | None


def plan(
    x: Tensor, weight: Tensor, stride: Sizes, pad: Sizes, dilation: Sizes, group: int
) -> Plan | None:
    """How to convolve ``x`` (N, C, H, W) with ``weight`` (K, C / group, taps, taps), both
    channels-last; None where torch's way is the fastest or the only one."""
    if not library.suits(x, weight):
        return None
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    if not weight.is_contiguous(memory_format=torch.channels_last):
        return None
    problem = problem_of(tuple(x.shape), tuple(weight.shape), stride, pad, dilation, group)
    return None if problem is None else _planned(problem)


@cache
def problem_of(
    shape: Sizes, filters: Sizes, stride: Sizes, pad: Sizes, dilation: Sizes, group: int
) -> Problem | None:
    """The convolution of a blob of this ``shape`` with ``filters`` (K, C / group, taps, taps), if
    the kernels are there and can do it."""
    if len(filters) != 4 or filters[2] != filters[3] or filters[2] not in (3, 5):
        return None
    outputs, channels, taps, _ = filters
    if any(each != 1 for each in (*stride, *dilation)) or pad[0] != pad[1] or pad[0] >= taps:
        return None
    if channels % _LANES or outputs // group % _LANES or max(shape[1], outputs) > _MOST_CHANNELS:
        return None
    images, _, height, width = shape
    problem = Problem(images, height, width, pad[0], channels, outputs // group, taps, group)
    if min(*problem.top, images) < 1:
        return None
    compiled = library.function("winograd", "winograd_4_3_filters", "piipi")
    return None if compiled is None else problem


@cache
def _planned(problem: Problem) -> Plan | None:
    forward, bottom = problem.fastest(), problem.turned().fastest()
    if forward is None and bottom is None:
        return None
    return Plan(problem, forward, bottom, forward)


def convolve(
    plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool = False
) -> Tensor:
    """The top (N, K, H', W') of a planned convolution, channels-last; ``rectified``: of a ReLU
    after it."""
    y: Tensor = _Convolution.apply(x, weight, bias, plan, rectified)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, rectified: bool
    ) -> Tensor:
        problem = plan.problem
        if plan.forward is None:
            y = torch.conv2d(x, weight, bias, padding=problem.pad, groups=problem.group)
            y = y.relu_() if rectified else y
        else:
            points = filter_points(problem, plan.forward, weight)
            y = run(problem, plan.forward, x, points, bias, rectified=rectified)
        ctx.save_for_backward(x, weight, y if rectified else None)
        ctx.plan = plan
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        plan: Plan = ctx.plan
        if torch.is_grad_enabled():  # this is to be differentiated again, which torch's own can be
            plan = Plan(plan.problem, None, None, None)
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        wants = list(ctx.needs_input_grad[:3])
        results: list[Tensor | None] = [None, None, None]
        if wants[0] and plan.bottom is not None:
            problem = plan.problem.turned()
            points = filter_points(problem, plan.bottom, weight, turned=True)
            results[0] = run(problem, plan.bottom, grad, points)
        if wants[1] and plan.filters is not None:
            results[1] = _filters_gradient(plan.problem, plan.filters, x, grad)
        if wants[2]:
            results[2] = grad.sum((0, 2, 3))
        left = [want and result is None for want, result in zip(wants, results, strict=True)]
        if any(left):
            pads, group = [plan.problem.pad] * 2, plan.problem.group
            rest = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], pads, [1, 1], False, [0, 0], group, left
            )
            results = [a if a is not None else b for a, b in zip(results, rest, strict=True)]
        return (*results, None, None)


def filter_points(problem: Problem, case: Case, weight: Tensor, turned: bool = False) -> Tensor:
    """The filters' points, (group, points of one group), as :func:`run` multiplies by them;
    ``turned``: for the gradient of the bottom, the turned ``problem``."""
    channels, outputs = problem.channels, problem.outputs
    points = torch.empty(problem.group, case.points * (channels * _up(outputs, _PANEL) + _SPARE))
    operation = "turned_filters" if turned else "filters"
    given = (outputs, channels) if turned else (channels, outputs)
    for index in range(problem.group):
        filters = _at(weight, index * outputs * channels * problem.taps**2)
        place = _at(points, index * points.shape[1])
        case.run(operation, "piipi", filters, *given, place, torch.get_num_threads())
    return points


def run(
    problem: Problem,
    case: Case,
    x: Tensor,
    points: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    rectified: bool = False,
) -> Tensor:
    """The convolution of ``x``, channels-last, with filters of these ``points``, plus ``bias`` and
    ``other``, a blob like the top; no less than 0 if ``rectified``."""
    channels, outputs, threads = problem.channels, problem.outputs, torch.get_num_threads()
    shape = (problem.images, outputs * problem.group, *problem.top)
    y = torch.empty(shape, memory_format=torch.channels_last)
    block, shared = problem.block(case, threads), problem.shares(case)
    room = _room(case, block * (channels + _up(outputs, _PANEL)), shared, threads)
    zeros, geometry = _zeros(), problem.geometry()
    for index in range(problem.group):
        case.run(
            "convolve",
            "ppppipppniii",
            _at(x, index * channels),
            _at(points, index * points.shape[1]),
            None if bias is None else _at(bias, index * outputs),
            None if other is None else _at(other, index * outputs),
            rectified,
            _at(zeros),
            _at(y, index * outputs),
            _at(room),
            geometry,
            block,
            shared,
            threads,
        )
    return y


def _filters_gradient(problem: Problem, case: Case, x: Tensor, grad: Tensor) -> Tensor:
    channels, outputs, taps = problem.channels, problem.outputs, problem.taps
    shape = (outputs * problem.group, channels, taps, taps)
    result = torch.empty(shape, memory_format=torch.channels_last)
    threads = torch.get_num_threads()
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
    return torch.empty(case.points * (points + 3 * _SPARE) * (1 if shared else threads))


@cache
def _zeros() -> Tensor:
    """What lies around images."""
    return torch.zeros(_MOST_CHANNELS)


def _at(tensor: Tensor, index: int = 0) -> int:
    return tensor.data_ptr() + 4 * index


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
