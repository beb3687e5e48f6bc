"""Testing: the test nets run before an iteration whenever test_interval says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import events
from .base import Hook
from .display import scalars

if TYPE_CHECKING:
    from ..solver import Solver


class Testing(Hook):
    """Tests at iteration 0 unless test_initialization is false, at every multiple of the interval,
    and once more at the end if that is one."""

    def __init__(self, interval: int, at_start: bool) -> None:
        self.interval = interval
        self.at_start = at_start

    def is_due(self, iteration: int) -> bool:
        return self.interval > 0 and iteration % self.interval == 0

    def before_step(self, solver: Solver) -> None:
        if self.is_due(solver.iteration) and (solver.iteration > 0 or self.at_start):
            run_tests(solver)

    def finish(self, solver: Solver) -> None:
        if self.is_due(solver.iteration):
            run_tests(solver)


def run_tests(solver: Solver, weights: str = "") -> None:
    """Test every test net, unless a stop is requested between two batches."""
    for index in range(len(solver.test_nets)):
        if solver.stopped_by is None:
            run_test(solver, index, weights)
    if not weights and solver.stopped_by is None:
        for hook in solver.hooks:
            hook.after_tests(solver)


def run_test(solver: Solver, index: int, weights: str = "") -> None:
    """Run test net ``index`` over its test_iter batches and report the means of its outputs.

    ``weights`` names the weights that are in the net, if they are not the trained ones.
    """
    net, batches = solver.test_nets[index], solver.parameters.test_iter[index]
    solver.emit(events.TestStarted(solver.iteration, index, weights))
    sums: dict[str, Tensor] = {}
    total: Tensor | None = None
    with torch.no_grad():
        for batch in range(batches):
            solver.obey_requests()
            if solver.stopped_by is not None:
                solver.emit(events.TestInterrupted(solver.iteration, index))
                return
            outputs, loss = solver.test_batch(index)
            for name, output in outputs.items():
                sums[name] = sums[name] + output if name in sums else output
            total = loss if total is None else total + loss
            solver.emit(events.TestProgress(solver.iteration, index, batch + 1, batches))
    means = {name: value / batches for name, value in sums.items()}
    loss_shown = None
    if solver.parameters.test_compute_loss and total is not None:
        loss_shown = float(total / batches)
    shown = scalars(means, net.loss_weights)
    solver.emit(events.TestFinished(solver.iteration, index, shown, loss_shown, weights))
    if not weights:
        values = {name: float(mean.float().mean()) for name, mean in means.items()}
        for hook in solver.hooks:
            hook.after_test(solver, index, values)
