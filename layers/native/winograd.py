"""Convolutions over 3x3 and 5x5 windows by Winograd's minimal filtering (``kernels/winograd.c``).

They take a fourth to a half of the products of a direct convolution, all in float32; the rounding
errors of the top and of the gradients are about as large (tests/layers/native/test_winograd.py).
Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from .library import address
from .winograd_plans import MOST_CHANNELS, PANEL, Case, Plan, Problem, round_up

#: Floats between the arrays of two points (SPARE in the kernels).
_SPARE = 16
#: Geometry, tiles in a block, whether the threads do it together, threads.
Shares = tuple[Any, int, bool, int]
#: What lies around images.
_AROUND = (ctypes.c_float * MOST_CHANNELS)()


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
    each = case.points * (channels * round_up(outputs, PANEL) + _SPARE)
    points = torch.empty(problem.group, each)
    operation = "turned_filters" if turned else "filters"
    given = (outputs, channels) if turned else (channels, outputs)
    for index in range(problem.group):
        filters = address(weight, index * outputs * channels * problem.taps**2)
        place = address(points, index * each)
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
    channels, outputs = problem.channels, problem.outputs
    shape = (problem.images, outputs * problem.group, *problem.top)
    y = torch.empty(shape, memory_format=torch.channels_last)
    room, shares = _share(problem, case, channels + round_up(outputs, PANEL))
    for index in range(problem.group):
        case.run(
            "convolve",
            "ppppipppniii",
            address(x, index * channels),
            address(points, index * points.shape[1]),
            address(bias, index * outputs),
            address(other, index * outputs),
            rectified,
            _AROUND,
            address(y, index * outputs),
            room,
            *shares,
        )
    return y


def _filters_gradient(problem: Problem, case: Case, x: Tensor, grad: Tensor) -> Tensor:
    channels, outputs, taps = problem.channels, problem.outputs, problem.taps
    shape = (outputs * problem.group, channels, taps, taps)
    result = torch.empty(shape, memory_format=torch.channels_last)
    columns = round_up(channels, PANEL)
    room, shares = _share(problem, case, outputs + columns, outputs * columns)
    for index in range(problem.group):
        case.run(
            "filters_gradient",
            "pppppniii",
            address(x, index * channels),
            address(grad, index * outputs),
            _AROUND,
            address(result, index * outputs * channels * taps**2),
            room,
            *shares,
        )
    return result


def _share(problem: Problem, case: Case, tile: int, filters: int = 0) -> tuple[Tensor, Shares]:
    """Memory for the points of all threads, ``tile`` at a point of each tile and ``filters``, and
    how these share the work, as the kernels take it."""
    threads = torch.get_num_threads()
    block, shared = problem.block(case, threads), problem.shares(case)
    points = block * tile + filters + 3 * _SPARE
    room = torch.empty(case.points * points * (1 if shared else threads))
    return room, (problem.geometry(), block, shared, threads)
