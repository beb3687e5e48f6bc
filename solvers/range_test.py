"""The learning-rate range test (Smith, 2017): the loss while the rate grows exponentially."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..proto.caffe_pb2 import SolverParameter
from ..proto.positions import Document
from .hooks import Hook
from .requirements import SolverDocument

if TYPE_CHECKING:
    from .loop import Iteration
    from .solver import Solver

#: Weight of the past in the smoothed loss.
SMOOTHING = 0.9
#: The test ends when the smoothed loss is so many times what it was at best.
DIVERGED = 4.0
#: The first losses, of which the smoothed loss knows little, suggest nothing.
UNSETTLED = 5

#: Fields of a solver that a range test goes without: tests, snapshots, and other ends of a run.
_LEFT_OUT = (
    "test_iter",
    "test_net",
    "test_net_param",
    "test_state",
    "test_interval",
    "test_epoch",
    "max_epoch",
    "snapshot",
    "snapshot_epoch",
    "snapshot_prefix",
    "display",
    "debug_info",
    "watch",
    "watch_net",
    "keep_best",
    "early_stop_patience",
    "ema_decay",
    "warmup_iter",
)


@dataclass(slots=True)
class RangeTest:
    """Rates, the loss before the update with each, and the smoothed loss."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smooth: list[float] = field(default_factory=list)

    @property
    def _lowest(self) -> int:
        return min(range(len(self.smooth)), key=lambda n: self.smooth[n])

    @property
    def best(self) -> float:
        """The rate at the smallest smoothed loss."""
        return self.rates[self._lowest]

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls fastest (rates are equally far apart in their
        logarithms) before it is smallest; None if it never falls."""
        changes = [
            (self.smooth[n + 1] - self.smooth[n - 1], n) for n in range(UNSETTLED, self._lowest)
        ]
        steepest = min(changes, default=(0.0, 0))
        return self.rates[steepest[1]] if steepest[0] < 0 else None

    def add(self, rate: float, loss: float) -> bool:
        """Enter one more loss; False if the run has diverged, and the loss is left out."""
        past = self.smooth[-1] * _known(len(self.smooth)) if self.smooth else 0.0
        known = _known(len(self.smooth) + 1)
        smooth = (SMOOTHING * past + (1 - SMOOTHING) * loss) / known
        if not math.isfinite(smooth):
            return False
        self.rates.append(rate)
        self.losses.append(loss)
        self.smooth.append(smooth)
        lowest = min(self.smooth)
        return len(self.smooth) <= UNSETTLED or smooth - lowest <= (DIVERGED - 1) * abs(lowest)


def _known(count: int) -> float:
    """How much of the smoothed loss is there after ``count`` losses, for it starts at 0."""
    return 1 - SMOOTHING**count


def ramp(document: SolverDocument, low: float, high: float, iterations: int) -> SolverDocument:
    """The solver as it is for a range test from rate ``low`` to ``high``."""
    solver = SolverParameter()
    solver.CopyFrom(document.message)
    for name in _LEFT_OUT:
        solver.ClearField(name)
    solver.base_lr, solver.lr_policy = low, "exp"
    solver.gamma = (high / low) ** (1 / (iterations - 1))
    solver.max_iter = iterations
    solver.snapshot_after_train = False
    solver.check_finite = False  # a loss that is not finite ends the test, not the program
    return Document(solver, document.root, document.variables)


class _Watch(Hook):
    def __init__(self) -> None:
        self.test = RangeTest()

    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        if not self.test.add(iteration.rate, float(iteration.loss)):
            solver.stop("the loss diverged")


def run(solver: Solver, iterations: int) -> RangeTest:
    """Train ``solver``, made of a :func:`ramp`, until its rate is the highest or it diverges."""
    watch = _Watch()
    solver.hooks.append(watch)
    solver.step(iterations)
    return watch.test
