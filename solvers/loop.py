"""The training loop: forward, backward, update; everything else is done by hooks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from . import diagnosis, events
from .policies import learning_rate

if TYPE_CHECKING:
    from .solver import Solver


@dataclass(slots=True)
class Iteration:
    """One iteration as hooks see it; tensors are on the device, and reading them waits for it.

    ``number`` counts the updates made before it; ``loss`` is the mean over the iter_size passes,
    ``outputs``, ``batch`` and ``generators`` (the states of the random generators before it) belong
    to the last pass. ``keys`` names the records of all passes. ``usable`` is False where scaled
    gradients overflowed, so that no update is made.
    """

    number: int
    loss: Tensor
    outputs: dict[str, Tensor]
    batch: dict[str, Tensor]
    generators: dict[str, Tensor] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
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
    """The iter_size passes of one iteration; gradients are summed, the loss is averaged.

    The passes end with one whose loss is seen not to be finite, so that its batch can be kept.
    """
    net, passes = solver.net, solver.parameters.iter_size
    solver.updater.clear_gradients()
    stops_early = passes > 1 and solver.parameters.check_finite and solver.device.type == "cpu"
    total: Tensor | None = None
    keys: list[str] = []
    for _ in range(passes):
        batch = net.next_batch()
        for step in net.sources:
            keys += step.source.last_keys
        generators = diagnosis.generator_states(solver.device)
        outputs, loss = net.run(batch)
        if loss.requires_grad:
            (loss if solver.scaler is None else solver.scaler.scaled(loss)).backward()
        total = loss.detach() if total is None else total + loss.detach()
        if stops_early and not math.isfinite(total):
            break
    assert total is not None
    usable = solver.scaler is None or solver.scaler.unscale(solver.updater.gradients())
    if not usable:
        solver.updater.clear_gradients()
    detached = {name: output.detach() for name, output in outputs.items()}
    mean = total / passes if passes > 1 else total
    return Iteration(
        solver.iteration, mean, detached, batch, generators, tuple(keys), usable=usable
    )


def _next_rate(solver: Solver) -> float:
    rate, step = learning_rate(solver.iteration, solver.parameters, solver.current_step)
    if solver.parameters.lr_policy == "multistep" and step != solver.current_step:
        solver.emit(events.StepAdvanced(solver.iteration, step))
    solver.current_step = step
    return rate
