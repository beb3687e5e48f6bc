"""The training loop: forward, backward, update; everything else is done by hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from . import diagnosis, events
from .policies import learning_rate

if TYPE_CHECKING:
    from .solver import Solver


@dataclass(frozen=True, slots=True)
class Pass:
    """One of the iter_size passes forward and backward of an iteration.

    ``iteration`` counts the updates made before it, ``index`` the passes of the iteration before
    it. ``evidence`` shows the pass again.
    """

    iteration: int
    index: int
    loss: Tensor
    outputs: dict[str, Tensor]
    evidence: diagnosis.Evidence


@dataclass(slots=True)
class Iteration:
    """One iteration as hooks see it; tensors are on the device, and reading them waits for it.

    ``number`` counts the updates made before it; ``loss`` is the mean over the iter_size passes;
    ``outputs`` and ``batch`` belong to the last pass. ``usable`` is False where scaled gradients
    overflowed, so that no update is made.
    """

    number: int
    loss: Tensor
    outputs: dict[str, Tensor]
    batch: Mapping[str, Tensor]
    rate: float = 0.0
    usable: bool = True


def run(solver: Solver, until: int) -> None:
    """Train until ``until`` updates are made or ``solver.stop`` was called."""
    while solver.iteration < until:
        for hook in solver.hooks:
            hook.before_step(solver)
        if solver.stopped_by is not None:
            return
        iteration = solver.forward_backward()
        for hook in solver.hooks:
            hook.after_backward(solver, iteration)
        iteration.rate = _next_rate(solver)
        for hook in solver.hooks:
            hook.before_update(solver, iteration)
        if iteration.usable:
            solver.updater.update(iteration.rate, solver.iteration)
        solver.iteration += 1
        for hook in solver.hooks:
            hook.after_update(solver, iteration)
        solver.emit(events.IterationDone(solver.iteration))
        if solver.stopped_by is not None:
            return


def apply_update(solver: Solver) -> None:
    """Make one update from the gradients that are there, and count it; hooks are not called."""
    rate = _next_rate(solver)
    solver.updater.update(rate, solver.iteration)
    solver.iteration += 1


def forward_backward(solver: Solver) -> Iteration:
    """The iter_size passes of one iteration; gradients are summed, the loss is averaged."""
    solver.clear_gradients()
    total: Tensor | None = None
    count = solver.parameters.iter_size
    for index in range(count):
        made = solver.make_pass(index)
        total = made.loss if total is None else total + made.loss
        asked_to_end = [hook.after_pass(solver, made) for hook in solver.hooks]
        if any(asked_to_end):
            break
    assert total is not None
    usable = solver.scaler is None or solver.scaler.unscale(solver.updater.gradients())
    if not usable:
        solver.updater.clear_gradients()
    mean = total / count if count > 1 else total
    return Iteration(solver.iteration, mean, made.outputs, made.evidence.batch, usable=usable)


def make_pass(solver: Solver, index: int) -> Pass:
    """The next batch forward and backward; its gradients are added to those that are there."""
    net = solver.net
    batch = net.next_batch()
    keys = tuple(key for step in net.sources for key in step.source.last_keys)
    evidence = diagnosis.Evidence(batch, diagnosis.generator_states(solver.device), keys)
    outputs, loss = net.run(batch)
    if loss.requires_grad:
        with solver.updater.in_backward(partial(_next_rate, solver), solver.iteration):
            (loss if solver.scaler is None else solver.scaler.scaled(loss)).backward()
        if index == 0 and solver.execution.cuda_graphs and solver.parameters.iter_size > 1:
            solver.updater.keep_gradients()
    detached = {name: output.detach() for name, output in outputs.items()}
    return Pass(solver.iteration, index, loss.detach(), detached, evidence)


def _next_rate(solver: Solver) -> float:
    rate, step = learning_rate(solver.iteration, solver.parameters, solver.current_step)
    if solver.parameters.lr_policy == "multistep" and step != solver.current_step:
        solver.emit(events.StepAdvanced(solver.iteration, step))
    solver.current_step = step
    return rate
