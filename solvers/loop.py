"""The training loop: forward, backward, update; everything else is done by hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from . import events
from .policies import learning_rate

if TYPE_CHECKING:
    from .solver import Solver


@dataclass(slots=True)
class Iteration:
    """One iteration as hooks see it; tensors are on the device, and reading them waits for it.

    ``number`` counts the updates made before it; ``loss`` is the mean over the iter_size passes,
    ``outputs`` and ``batch`` belong to the last pass. ``usable`` is False where scaled gradients
    overflowed, so that no update is made.
    """

    number: int
    loss: Tensor
    outputs: dict[str, Tensor]
    batch: dict[str, Tensor]
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
    net, passes = solver.net, solver.parameters.iter_size
    solver.updater.clear_gradients()
    total: Tensor | None = None
    for _ in range(passes):
        batch = net.next_batch()
        outputs, loss = net.run(batch)
        if loss.requires_grad:
            (loss if solver.scaler is None else solver.scaler.scaled(loss)).backward()
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    usable = solver.scaler is None or solver.scaler.unscale(solver.updater.gradients())
    if not usable:
        solver.updater.clear_gradients()
    detached = {name: output.detach() for name, output in outputs.items()}
    return Iteration(
        solver.iteration, total / passes if passes > 1 else total, detached, batch, usable=usable
    )


def _next_rate(solver: Solver) -> float:
    rate, step = learning_rate(solver.iteration, solver.parameters, solver.current_step)
    if solver.parameters.lr_policy == "multistep" and step != solver.current_step:
        solver.emit(events.StepAdvanced(solver.iteration, step))
    solver.current_step = step
    return rate
