"""Winograd's convolutions against the direct one in float64."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cortado.layers.native import winograd, winograd_plans
from cortado.layers.native.winograd_plans import CASES, Case, Plan, Problem
from support.kernels import needs_compiler

# images, channels, height, width, outputs, taps, pad, group
SHAPES = [
    (2, 64, 17, 22, 48, 3, 1, 1),  # neither side a multiple of a tile, half a panel of outputs
    (1, 32, 8, 5, 32, 3, 0, 1),  # no padding
    (3, 16, 6, 6, 64, 3, 2, 1),  # more padding than half a window
    (2, 96, 9, 9, 64, 3, 1, 2),  # groups
    (1, 512, 14, 14, 512, 3, 1, 1),  # threads share a block
    (9, 64, 28, 28, 64, 3, 1, 1),  # several blocks a thread
    (2, 32, 13, 16, 48, 5, 2, 1),
    (1, 64, 7, 9, 32, 5, 0, 2),
    (2, 16, 5, 5, 16, 5, 4, 1),
]


def arranged(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def made(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor, Problem]:
    """Bottom, filters, bias, gradient of the top, and the problem they are of."""
    images, channels, height, width, outputs, taps, pad, group = shape
    torch.manual_seed(sum(shape))
    problem = Problem(images, height, width, pad, channels // group, outputs // group, taps, group)
    x = arranged(images, channels, height, width)
    weight = arranged(outputs, channels // group, taps, taps) * 0.1
    return x, weight, torch.randn(outputs), arranged(images, outputs, *problem.top), problem


def results(function: object, *inputs: Tensor) -> list[Tensor]:
    """The top and the gradients for the last of ``inputs`` as that of the top."""
    leaves = [each.detach().clone().requires_grad_() for each in inputs[:-1]]
    top = function(*leaves)  # type: ignore[operator]
    top.backward(inputs[-1])
    return [top.detach(), *(leaf.grad for leaf in leaves)]  # type: ignore[list-item]


def error(found: Tensor, right: Tensor) -> float:
    return ((found - right).abs().max() / right.abs().max()).item()


def cases(shape: tuple[int, ...]) -> list[Case]:
    return [case for case in CASES if case.taps == shape[5]]


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "case"), [(shape, case) for shape in SHAPES for case in cases(shape)]
)
def test_agrees_with_the_direct_convolution(
    shape: tuple[int, ...], case: Case, threads: int
) -> None:
    *inputs, problem = made(shape)
    plan = Plan(problem, case, case, case)

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=problem.pad, groups=problem.group)

    right = results(direct, *(each.double() for each in inputs))
    usual = results(direct, *inputs)
    found = results(lambda *leaves: winograd.convolve(plan, *leaves), *inputs)
    for name, a, b, c in zip(("top", "x", "weight", "bias"), found, usual, right, strict=True):
        assert a.shape == c.shape
        assert error(a, c) < max(4 * error(b, c), 3e-6), name
    again = results(lambda *leaves: winograd.convolve(plan, *leaves), *inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@needs_compiler
def test_rounding_errors_are_of_the_size_of_the_direct_ones() -> None:
    """Over many values, where the largest error says little: the root of the mean square."""
    for taps, channels in ((3, 64), (3, 256), (5, 64)):
        x, weight, bias, _, problem = made((4, channels, 24, 24, 64, taps, taps // 2, 1))
        right = F.conv2d(x.double(), weight.double(), bias.double(), padding=taps // 2)
        direct = F.conv2d(x, weight, bias, padding=taps // 2)
        usual = (direct - right).pow(2).mean().sqrt()
        for case in cases((0,) * 5 + (taps,)):
            found = winograd.convolve(Plan(problem, case, None, None), x, weight, bias)
            assert (found - right).pow(2).mean().sqrt() < 3 * usual


@needs_compiler
@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)])
@pytest.mark.parametrize("part", ["forward", "bottom", "filters"])
def test_passes_that_are_left_to_torch(wanted: tuple[int, ...], part: str) -> None:
    x, weight, bias, grad, problem = made((2, 32, 9, 10, 32, 3, 1, 1))
    chosen = {name: CASES[0] for name in ("forward", "bottom", "filters") if name != part}
    plan = Plan(problem, *(chosen.get(each) for each in ("forward", "bottom", "filters")))
    leaves = [
        each.clone().requires_grad_(bool(want))
        for each, want in zip((x, weight, bias), wanted, strict=True)
    ]
    winograd.convolve(plan, *leaves).backward(grad)
    same = [each.detach().clone().requires_grad_() for each in leaves]
    F.conv2d(*same, padding=1).backward(grad)
    for leaf, other, want in zip(leaves, same, wanted, strict=True):
        if want:
            assert leaf.grad is not None
            assert other.grad is not None
            assert error(leaf.grad, other.grad) < 1e-5
        else:
            assert leaf.grad is None


@needs_compiler
def test_second_derivatives_are_those_of_torch() -> None:
    x, weight, bias, _, problem = made((2, 32, 9, 10, 32, 3, 1, 1))
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    plan = Plan(problem, *CASES[:1] * 3)
    seconds = []
    for top in (
        winograd.convolve(plan, x, weight, bias, rectified=True),
        F.relu(F.conv2d(x, weight, bias, padding=1)),
    ):
        firsts = torch.autograd.grad(top.square().sum(), leaves, create_graph=True)
        seconds.append(torch.autograd.grad(sum(each.square().sum() for each in firsts), leaves))
    for found, right in zip(*seconds, strict=True):
        assert error(found, right) < 1e-5


@needs_compiler
def test_is_planned_where_it_pays_and_only_there() -> None:
    def planned(
        x: Tensor, weight: Tensor, stride: int = 1, pad: int = 1, dilation: int = 1
    ) -> bool:
        pairs = ((each, each) for each in (stride, pad, dilation))
        return winograd_plans.plan(x, weight, *pairs, 1) is not None

    x, weight = arranged(4, 64, 32, 32), arranged(64, 64, 3, 3)
    assert planned(x, weight)
    assert not planned(x, weight, stride=2)
    assert not planned(x, weight, dilation=2)
    assert not planned(x, arranged(64, 64, 1, 1), pad=0)
    assert not planned(x, arranged(64, 64, 3, 5))
    assert not planned(x.double(), weight.double())
    assert not planned(x.contiguous(), weight)
    assert not planned(x, weight.contiguous())
    assert not planned(arranged(4, 24, 32, 32), arranged(64, 24, 3, 3))  # channels of half a vector
    assert not planned(arranged(1, 512, 2, 2), arranged(512, 512, 3, 3))  # few pixels
    with torch.autocast("cpu", torch.bfloat16):
        assert not planned(x, weight)


FEWER = """
import torch
from cortado.layers.native import winograd
from cortado.layers.native.winograd_plans import CASES, Plan, Problem

torch.manual_seed(0)
torch.set_num_threads(4)
for channels in (32, 512):  # a block for each thread, and blocks that they share
    x, y = (torch.randn(3, channels, 20, 20).contiguous(memory_format=torch.channels_last)
            for _ in range(2))
    weight = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    for each in (x, weight):
        each.requires_grad_()
    plan = Plan(Problem(3, 20, 20, 1, channels, channels, 3, 1), *CASES[:1] * 3)
    found = winograd.convolve(plan, x, weight, None)
    # In float64: with such a limit oneDNN's own gradients are wrong.
    right = torch.conv2d(x.double(), weight.double(), padding=1)
    assert (found - right).abs().max() < 1e-4 * right.abs().max()
    expected = torch.autograd.grad(right, (x, weight), y.double())
    for a, b in zip(torch.autograd.grad(found, (x, weight), y), expected):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()
"""


@needs_compiler
def test_fewer_threads_than_asked_for_do_all_the_work() -> None:
    limited = os.environ | {"OMP_THREAD_LIMIT": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FEWER], env=limited, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
