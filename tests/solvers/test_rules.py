"""Update rules alone: against their formulas in double precision and against torch.optim."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.solvers.rules import rule_names
from cortado.solvers.update import Updater
from support.solver_goldens import assert_close

SHAPES = ((5, 3, 2, 2), (7,), (4, 6))


@dataclass
class Parameter:
    """Enough of a net's parameter for the updater."""

    tensor: torch.Tensor
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    name: str = "w"
    learnable: bool = True


def solver(rule: str, **fields) -> SolverParameter:
    momentum = {} if rule in ("AdaGrad", "RMSProp") else {"momentum": 0.9}
    return SolverParameter(type=rule, **{**momentum, **fields})


def tensors(seed: int, device: str = "cpu", channels_last: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator) for shape in SHAPES]
    if channels_last:
        made[0] = made[0].to(memory_format=torch.channels_last)
    return [tensor.to(device).requires_grad_() for tensor in made]


def run(settings: SolverParameter, steps: int = 6, **where) -> list[torch.Tensor]:
    """Weights and history after updates with made-up gradients and a falling rate."""
    weights = tensors(1, **where)
    updater = Updater([Parameter(weight) for weight in weights], settings)  # type: ignore[misc]
    for number in range(steps):
        for weight, gradient in zip(weights, tensors(100 + number), strict=True):
            weight.grad = torch.empty_like(weight).copy_(gradient.detach())
        updater.update(0.05 / (1 + number), number)
    return [tensor.detach().cpu() for tensor in (*weights, *updater.history_list())]


def agree(found: list[torch.Tensor], expected: list[torch.Tensor], rtol: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other.detach().numpy(), rtol, "tensor")


@pytest.mark.parametrize("rule", rule_names())
def test_layout_does_not_matter(rule: str) -> None:
    settings = solver(rule, weight_decay=0.01, iter_size=2, clip_gradients=0.3)
    agree(run(settings, channels_last=True), run(settings), rtol=1e-6)


@pytest.mark.parametrize("rule", rule_names())
def test_gradients_may_have_a_layout_of_their_own(rule: str) -> None:
    weights = tensors(1, channels_last=True)
    updater = Updater([Parameter(weight) for weight in weights], solver(rule))  # type: ignore[misc]
    for number in range(6):
        for weight, gradient in zip(weights, tensors(100 + number), strict=True):
            weight.grad = gradient.detach().clone()  # the default layout
        updater.update(0.05 / (1 + number), number)
    agree([*weights, *updater.history_list()], run(solver(rule)), rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("rule", rule_names())
def test_cuda_agrees_with_cpu(rule: str) -> None:
    settings = solver(rule, weight_decay=0.01, iter_size=2, clip_gradients=0.3)
    agree(run(settings, device="cuda"), run(settings))


@pytest.mark.parametrize("rule", rule_names())
def test_clipping_and_iter_size_scale_the_gradient(rule: str) -> None:
    """A gradient twice as large, halved by iter_size, is the same gradient; weights move."""
    once, start = run(solver(rule)), tensors(1)
    assert not torch.equal(once[0], start[0])
    weights = tensors(1)
    updater = Updater(
        [Parameter(weight) for weight in weights],  # type: ignore[misc]
        solver(rule, iter_size=2, clip_gradients=1e6),
    )
    for number in range(6):
        for weight, gradient in zip(weights, tensors(100 + number), strict=True):
            weight.grad = 2 * gradient.detach()
        updater.update(0.05 / (1 + number), number)
    agree([*weights, *updater.history_list()], once)


OPTIMISERS = {
    "AdamW": (torch.optim.AdamW, {}),
    "NAdam": (torch.optim.NAdam, {"momentum_decay": 1e9}),  # a momentum that stays the same
    "RAdam": (torch.optim.RAdam, {}),
    "Adam": (torch.optim.Adam, {}),
}


@pytest.mark.parametrize("rule", OPTIMISERS)
def test_agrees_with_torch(rule: str) -> None:
    kind, extra = OPTIMISERS[rule]
    weights = tensors(1)
    optimiser = kind(weights, lr=0.05, weight_decay=0.01, **extra)
    for number in range(8):
        for weight, gradient in zip(weights, tensors(100 + number), strict=True):
            weight.grad = gradient.detach().clone()
        for group in optimiser.param_groups:
            group["lr"] = 0.05 / (1 + number)
        optimiser.step()
    found = run(solver(rule, weight_decay=0.01), steps=8)
    agree(found[: len(weights)], weights, rtol=2e-5)


def rmsprop_in_torch(**options) -> list[torch.Tensor]:
    """Weights after updates by torch's RMSProp, with the gradients and rates of :func:`run`."""
    weights = tensors(1)
    optimiser = torch.optim.RMSprop(weights, lr=0.05, **options)
    for number in range(8):
        for weight, gradient in zip(weights, tensors(100 + number), strict=True):
            weight.grad = gradient.detach().clone()
        for group in optimiser.param_groups:
            group["lr"] = 0.05 / (1 + number)
        optimiser.step()
    return weights


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_rmsprop_with_momentum_agrees_with_torch(momentum: float) -> None:
    wanted = rmsprop_in_torch(alpha=0.9, eps=1e-3, weight_decay=0.01, momentum=momentum)
    fields = {"rms_decay": 0.9, "delta": 1e-3, "weight_decay": 0.01}
    found = run(solver("RMSPropMomentum", momentum=momentum, **fields), steps=8)
    agree(found[: len(wanted)], wanted, rtol=2e-5)
    if not momentum:
        agree(run(solver("RMSProp", **fields), steps=8)[: len(wanted)], wanted, rtol=2e-5)


def test_delta_may_be_inside_the_root() -> None:
    """As TensorFlow has it; the first update shows it alone."""
    fields = {"rms_decay": 0.9, "delta": 0.25, "delta_inside_root": True}
    found = run(solver("RMSPropMomentum", **fields), steps=1)
    for after, before, gradient in zip(found, tensors(1), tensors(100), strict=False):
        change = 0.05 * gradient / (0.1 * gradient**2 + 0.25).sqrt()
        assert torch.allclose(after, before - change, rtol=1e-5, atol=1e-7)


def reference(rule: str, settings: SolverParameter, steps: int = 6) -> list[torch.Tensor]:
    """The rules torch does not have, from their papers, one number after the other in double."""
    weights = [weight.detach().double() for weight in tensors(1)]
    first = [torch.zeros_like(weight) for weight in weights]
    second = [torch.zeros_like(weight) for weight in weights]
    decay, b1, b2 = settings.weight_decay, settings.momentum, settings.momentum2
    for number in range(steps):
        rate = 0.05 / (1 + number)
        for index, (w, g) in enumerate(zip(weights, tensors(100 + number), strict=True)):
            g, m, v = g.detach().double(), first[index], second[index]
            matrix = w.dim() > 1
            if rule == "LARS":
                trust = settings.trust_coefficient * w.norm() / (g.norm() + decay * w.norm())
                m = b1 * m + rate * (trust if matrix else 1.0) * (g + decay * w)
                w = w - m
            elif rule == "LAMB":
                m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
                root = (v / (1 - b2 ** (number + 1))).sqrt() + settings.delta
                u = m / (1 - b1 ** (number + 1)) / root + decay * w
                w = w - rate * (w.norm() / u.norm() if matrix else 1.0) * u
            else:
                u = torch.sign(b1 * m + (1 - b1) * g) + decay * w
                m, w = b2 * m + (1 - b2) * g, w - rate * u
            weights[index], first[index], second[index] = w, m, v
    return [*weights, *first, *(second if rule == "LAMB" else [])]


@pytest.mark.parametrize("rule", ["LARS", "LAMB", "Lion"])
def test_agrees_with_its_paper(rule: str) -> None:
    settings = solver(rule, weight_decay=0.01, momentum2=0.99)
    agree(run(settings), [tensor.float() for tensor in reference(rule, settings)])


def test_zero_weights_and_gradients_are_no_trouble_for_layerwise_rules() -> None:
    for rule in ("LARS", "LAMB"):
        weight = torch.zeros(3, 3, requires_grad=True)
        updater = Updater([Parameter(weight)], solver(rule))  # type: ignore[list-item]
        weight.grad = torch.zeros(3, 3)
        updater.update(0.1, 0)
        weight.grad = torch.ones(3, 3)
        updater.update(0.1, 1)
        assert weight.isfinite().all()
        assert weight.abs().max() > 0


def test_groups_are_few_and_frozen_parameters_are_left_out() -> None:
    weights = tensors(1)
    params = [
        Parameter(weights[0], 1.0, 1.0),
        Parameter(weights[1], 2.0, 0.0),
        Parameter(weights[2], 0.0, 1.0),
    ]
    updater = Updater(params, solver("SGD", weight_decay=0.1))  # type: ignore[arg-type]
    assert [group.indices for group in updater._groups] == [[0], [1]]
    # Adam's moments of a frozen parameter still take in its decay, as in Caffe.
    adam = Updater(params, solver("Adam", weight_decay=0.1))  # type: ignore[arg-type]
    assert [group.indices for group in adam._groups] == [[0], [1], [2]]


def test_layer_clipping_and_noise() -> None:
    weight = torch.zeros(4, 4, requires_grad=True)
    settings = solver("SGD", momentum=0, clip_layer_gradients=1.0)
    updater = Updater([Parameter(weight)], settings)  # type: ignore[list-item]
    weight.grad = torch.full((4, 4), 3.0)
    updater.update(1.0, 0)
    assert math.isclose(float(weight.detach().norm()), 1.0, rel_tol=1e-6)
    noisy = Updater(
        [Parameter(weight)],  # type: ignore[list-item]
        solver("SGD", momentum=0, gradient_noise=0.5),
    )
    with torch.no_grad():
        weight.zero_()
    torch.manual_seed(0)
    weight.grad = torch.zeros(4, 4)
    noisy.update(1.0, 0)
    assert 0.2 < float(weight.detach().std()) < 0.9
