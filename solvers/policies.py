"""Learning-rate policies: pure functions from the iteration to the rate.

A policy is ``policy(iteration, solver, step) -> Rate``. ``iteration`` counts the updates already
made. ``step`` is Caffe's ``current_step``, kept in the solver state, which only the policies that
drop the rate in steps read or change. Fields are float32 in the message, as Caffe reads them; the
arithmetic is double.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..proto.caffe_pb2 import SolverParameter
from ..proto.errors import Fault, nearest
from .requirements import (
    Requirement,
    SolverDocument,
    at_least,
    faults,
    fraction,
    given,
    is_set,
    place,
    positive,
)


class Rate(NamedTuple):
    """A learning rate, and the step counter after it was asked for."""

    value: float
    step: int


Function = Callable[[int, SolverParameter, int], Rate]


@dataclass(frozen=True, slots=True)
class Policy:
    """A registered policy and the fields that it needs."""

    name: str
    function: Function
    requirements: tuple[Requirement, ...]


_policies: dict[str, Policy] = {}

_GAMMA = at_least("gamma", 0)
_MAX_ITER = positive("max_iter", instead="max_epoch")


def register(name: str, *requirements: Requirement) -> Callable[[Function], Function]:
    """Make a function available as ``lr_policy: "<name>"``; ``base_lr`` is always required."""

    def enter(function: Function) -> Function:
        _policies[name] = Policy(name, function, (given("base_lr"), *requirements))
        return function

    return enter


def policy_names() -> list[str]:
    return sorted(_policies)


def depends_on(policy: str, field: str) -> bool:
    """Whether the rates of a policy depend on a field that it asks for."""
    return any(requirement.field == field for requirement in _policies[policy].requirements)


def check(document: SolverDocument) -> Iterator[Fault]:
    """What is wrong with the policy of a solver and its fields."""
    name = document.message.lr_policy
    if name not in _policies:
        found = f'got "{name}"' if name else "but it is not set"
        known = ", ".join(policy_names())
        yield Fault(
            f"lr_policy must be one of {known}, {found}{nearest(name, _policies)}",
            place(document, "lr_policy"),
        )
        return
    yield from faults(_policies[name].requirements, document, f'lr_policy "{name}"')
    yield from faults(_WARM_UP, document)


def learning_rate(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """The rate of the update that follows ``iteration`` updates, warm-up included."""
    rate = _policies[solver.lr_policy].function(iteration, solver, step)
    if iteration < solver.warmup_iter:
        start = solver.warmup_start
        rate = Rate(rate.value * (start + (1 - start) * iteration / solver.warmup_iter), rate.step)
    return rate


_WARM_UP = (
    at_least("warmup_iter", 0, optional=True),
    Requirement("warmup_start", "from 0 to 1", lambda value: 0 <= value <= 1, optional=True),
)


def _power(base: float, exponent: float) -> float:
    """``base ** exponent``, infinity instead of an overflow error."""
    try:
        return float(base**exponent)
    except (OverflowError, ZeroDivisionError):
        return math.inf


@register("fixed")
def fixed(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr."""
    return Rate(solver.base_lr, step)


@register("step", _GAMMA, positive("stepsize"))
def step_policy(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr * gamma ^ floor(iteration / stepsize)."""
    step = iteration // solver.stepsize
    return Rate(solver.base_lr * _power(solver.gamma, step), step)


@register("exp", _GAMMA)
def exponential(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr * gamma ^ iteration."""
    return Rate(solver.base_lr * _power(solver.gamma, iteration), step)


@register("inv", _GAMMA, given("power"))
def inverse(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr * (1 + gamma * iteration) ^ -power."""
    return Rate(solver.base_lr * _power(1 + solver.gamma * iteration, -solver.power), step)


@register("multistep", _GAMMA, given("stepvalue"))
def multistep(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr * gamma ^ step, where step grows by one at each stepvalue.

    As in Caffe it grows at most by one an evaluation, so two equal values take two iterations.
    """
    if step < len(solver.stepvalue) and iteration >= solver.stepvalue[step]:
        step += 1
    return Rate(solver.base_lr * _power(solver.gamma, step), step)


@register("poly", given("power"), _MAX_ITER)
def polynomial(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr * (1 - iteration / max_iter) ^ power; 0 from max_iter on."""
    left = max(0.0, 1 - iteration / solver.max_iter)
    return Rate(solver.base_lr * _power(left, solver.power), step)


@register("sigmoid", _GAMMA, positive("stepsize"))
def sigmoid(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize))): rises, for a positive gamma."""
    half = 0.5 * solver.gamma * (iteration - solver.stepsize)
    return Rate(solver.base_lr * 0.5 * (1 + math.tanh(half)), step)


# Beyond Caffe.


@register("linear", _MAX_ITER)
def linear(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """From base_lr to min_lr in a straight line over max_iter iterations."""
    done = min(1.0, iteration / solver.max_iter)
    return Rate(solver.base_lr + (solver.min_lr - solver.base_lr) * done, step)


def _cosine(start: float, end: float, done: float) -> float:
    """Half a cosine wave from ``start`` (done = 0) to ``end`` (done = 1)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


@register(
    "cosine",
    _MAX_ITER,
    positive("restart_iter", optional=True),
    at_least("restart_mult", 1, optional=True),
)
def cosine(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """Half a cosine from base_lr to min_lr (Loshchilov and Hutter, 2017).

    Over max_iter iterations, or, with restart_iter, over cycles of which the first has
    restart_iter iterations and each further one restart_mult times as many.
    """
    length = float(solver.restart_iter or solver.max_iter)
    position = float(iteration)
    if solver.restart_iter:
        while position >= length:
            position -= length
            length *= solver.restart_mult
    done = min(1.0, position / length)
    return Rate(_cosine(solver.base_lr, solver.min_lr, done), step)


@register(
    "onecycle",
    _MAX_ITER,
    Requirement("peak_fraction", "between 0 and 1", lambda value: 0 < value < 1, optional=True),
    at_least("start_divisor", 1, optional=True),
)
def one_cycle(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """Up to base_lr over the first peak_fraction of the run, then down to min_lr, both along half
    a cosine; it starts at base_lr / start_divisor (Smith and Topin, 2018)."""
    peak = solver.peak_fraction * solver.max_iter
    if iteration < peak:
        start = solver.base_lr / solver.start_divisor
        return Rate(_cosine(start, solver.base_lr, iteration / peak), step)
    done = min(1.0, (iteration - peak) / (solver.max_iter - peak))
    return Rate(_cosine(solver.base_lr, solver.min_lr, done), step)


@register(
    "plateau", fraction("gamma", optional=False), given("watch"), positive("plateau_patience")
)
def plateau(iteration: int, solver: SolverParameter, step: int = 0) -> Rate:
    """base_lr * gamma ^ step, never below min_lr.

    The step counter grows when the test output ``watch`` has not improved for plateau_patience
    tests; the hook in hooks/watching.py counts them.
    """
    return Rate(max(solver.min_lr, solver.base_lr * _power(solver.gamma, step)), step)


def schedule(solver: SolverParameter, iterations: int) -> Iterator[float]:
    """The rates of the first ``iterations`` updates, for a preview."""
    step = 0
    for iteration in range(iterations):
        value, step = learning_rate(iteration, solver, step)
        yield value


__all__ = [
    "Policy",
    "Rate",
    "check",
    "depends_on",
    "is_set",
    "learning_rate",
    "policy_names",
    "register",
    "schedule",
]
