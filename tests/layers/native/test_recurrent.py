"""The steps of LSTM and RNN in C against torch's, and both against float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cortado.layers.native import library, recurrent
from cortado.layers.recurrent_steps import LSTMSteps, TanhSteps
from support.kernels import forget, needs_compiler

# steps, sequences, inputs, units: full blocks of units and not, one team of threads and more
SHAPES = [(8, 4, 7, 3), (6, 16, 32, 64), (7, 5, 20, 33), (4, 17, 64, 130), (3, 40, 16, 65)]
KINDS = [LSTMSteps, TanhSteps]


@pytest.fixture(params=["tiles", "vectors"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "vectors" and library.has_tiles():
        monkeypatch.setattr(library, "_FLAGS", (*library._FLAGS, "-mno-amx-bf16"))
    forget()
    yield request.param
    monkeypatch.undo()
    forget()


def made(
    kind: type[torch.autograd.Function], shape: tuple[int, ...], own_offset: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """What kind is applied to, and the gradient of its first top."""
    torch.manual_seed(sum(shape))
    steps, batch, inputs, size = shape
    gates, states = (4, 2) if kind is LSTMSteps else (1, 1)
    cont = (torch.rand(steps, batch, 1) > 0.2).float()
    cont[steps // 2, 0] = 0.5  # Caffe has no rule against it
    offset = torch.randn(batch, gates * size) if own_offset else torch.randn(gates * size)
    weights = [torch.randn(gates * size, width) * width**-0.5 for width in (inputs, size)]
    state = [torch.randn(batch, size) for _ in range(states)]
    x = torch.randn(steps, batch, inputs)
    return [x, weights[0], offset, cont, weights[1], *state], [torch.randn(steps, batch, size)]


def results(
    kind: type[torch.autograd.Function],
    inputs: list[Tensor],
    towards: list[Tensor],
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    leaves = [each.to(dtype) for each in inputs]
    wanted = [leaves[index].requires_grad_() for index in (0, 1, 2, 4)]
    tops = kind.apply(*leaves)
    grads = torch.autograd.grad(tops[0], wanted, towards[0].to(dtype))
    return [*(top.detach() for top in tops), *grads]


def error(found: Tensor, right: Tensor) -> float:
    return ((found - right).abs().max() / right.abs().max()).item()


@needs_compiler
@pytest.mark.parametrize("own_offset", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_steps_in_double(
    kind: type[torch.autograd.Function],
    shape: tuple[int, ...],
    own_offset: bool,
    way: str,
    threads: int,
) -> None:
    inputs, towards = made(kind, shape, own_offset)
    assert recurrent.suits(*inputs)
    found = results(kind, inputs, towards)
    right = results(kind, inputs, towards, torch.float64)
    for a, b in zip(found, right, strict=True):
        assert error(a, b) < 3e-6
    again = results(kind, inputs, towards)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_torchs_steps_in_float(
    kind: type[torch.autograd.Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way without a compiler; its errors are about as large."""
    inputs, towards = made(kind, (20, 16, 48, 80), False)
    right = results(kind, inputs, towards, torch.float64)
    found = results(kind, inputs, towards)
    monkeypatch.setattr(recurrent, "suits", lambda *tensors: False)
    plain = results(kind, inputs, towards)
    for a, b, exact in zip(found, plain, right, strict=True):
        assert error(b, exact) < 1e-5
        assert error(a, exact) < 3 * error(b, exact) + 1e-6


@needs_compiler
@pytest.mark.parametrize("wanted", [[0], [4], [1, 2]])
@pytest.mark.parametrize("kind", KINDS)
def test_gives_only_the_gradients_that_are_wanted(
    kind: type[torch.autograd.Function], wanted: list[int]
) -> None:
    inputs, towards = made(kind, (5, 8, 6, 20), False)
    every = dict(zip((0, 1, 2, 4), results(kind, inputs, towards)[-4:], strict=True))
    inputs = [each.detach() for each in inputs]
    for index in wanted:
        inputs[index].requires_grad_()
    top = kind.apply(*inputs)[0]
    found = torch.autograd.grad(top, [inputs[index] for index in wanted], towards[0])
    for index, grad in zip(wanted, found, strict=True):
        torch.testing.assert_close(grad, every[index])


@needs_compiler
def test_gates_are_accurate_saturate_and_keep_nan(way: str) -> None:
    """tanh and sigmoid from the smallest numbers to infinity, by steps without weights."""
    steps, batch, size = 8, 32, 64
    some = torch.cat((torch.linspace(0, 12, 960), torch.logspace(-30, 30, 62)))
    some = torch.cat((some, torch.tensor([float("inf"), 88.5])))
    values = torch.cat((some, -some)).repeat(8).view(steps, batch, size)
    values[7, 3, 0] = float("nan")
    cont, state = torch.zeros(steps, batch, 1), torch.zeros(batch, size)
    output, before = values.clone(), torch.empty_like(values)
    recurrent.tanh_forward(output, torch.zeros(size), cont, torch.zeros(size, size), state, before)
    gates = values.repeat(1, 1, 4)
    cells, squashed = torch.zeros(steps + 1, batch, size), torch.empty_like(values)
    recurrent.lstm_forward(
        gates, torch.zeros(4 * size), cont, torch.zeros(4 * size, size), state, before, cells,
        squashed, torch.empty_like(values),
    )  # fmt: skip
    pairs = ((output, values.double().tanh()), (gates[..., :size], values.double().sigmoid()))
    for found, right in pairs:
        assert torch.equal(found.isnan(), values.isnan())
        near = (found - right).abs() <= 2.5e-7 * right.abs() + 1e-37
        assert (near | values.isnan()).all()
