"""Watching a test output: drop the rate on a plateau, stop early, keep the best snapshots."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...proto.caffe_pb2 import SolverParameter
from ...proto.errors import ConfigError, Fault, nearest
from .. import events, snapshots
from ..requirements import place
from .base import Hook
from .snapshots import Snapshots

if TYPE_CHECKING:
    from ..solver import Solver


class Watching(Hook):
    """Counts the tests since the output ``watch`` was best, and acts on the count.

    A value that is not finite is never an improvement. The best snapshots are written as
    ``<prefix>_best_iter_<iteration>``; what falls out of the best ``keep_best`` is deleted.
    """

    name: ClassVar[str] = "watching"

    def __init__(self, parameters: SolverParameter, saver: Snapshots) -> None:
        self.parameters = parameters
        self.best = math.nan
        self.tests_since_best = 0
        #: Value, iteration and files of the snapshots kept, best first.
        self.kept: list[tuple[float, int, list[str]]] = []
        self._saver = saver
        self._sign = 1.0

    def before_train(self, solver: Solver) -> None:
        """Find the output, and whether larger is better."""
        net, name = solver.test_nets[self.parameters.watch_net], self.parameters.watch
        if name not in net.outputs:
            raise ConfigError(
                Fault(
                    f'watch: test net #{self.parameters.watch_net} has no output "{name}"'
                    f"{nearest(name, net.outputs)} (outputs: {', '.join(net.outputs)})",
                    place(solver.document, "watch"),
                )
            )
        goal = self.parameters.watch_goal
        smaller = goal == SolverParameter.MINIMIZE or (
            goal == SolverParameter.BY_OUTPUT and net.loss_weights.get(name, 0) != 0
        )
        self._sign = -1.0 if smaller else 1.0

    def after_test(self, solver: Solver, index: int, outputs: dict[str, float]) -> None:
        if index != self.parameters.watch_net:
            return
        value = outputs[self.parameters.watch]
        if self._improves(value):
            self.best, self.tests_since_best = value, 0
        else:
            self.tests_since_best += 1
        self._keep(solver, value)
        if self.tests_since_best:
            self._lose_patience(solver)

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if math.isnan(self.best):
            return True
        return self._sign * (value - self.best) > self.parameters.min_improvement

    def _lose_patience(self, solver: Solver) -> None:
        parameters, waited = self.parameters, self.tests_since_best
        plateau = parameters.lr_policy == "plateau" and waited % parameters.plateau_patience == 0
        if plateau:
            solver.current_step += 1
            solver.emit(
                events.Notice(f"{waited} tests without improvement: learning rate {solver.rate:g}")
            )
        if parameters.early_stop_patience and waited >= parameters.early_stop_patience:
            best = f"{parameters.watch} = {self.best:g}"
            solver.stop(f"early stopping: {waited} tests without improvement over {best}")

    def _keep(self, solver: Solver, value: float) -> None:
        limit = self.parameters.keep_best
        if not limit or not math.isfinite(value):
            return
        ranked = [*self.kept, (value, solver.iteration, [])]
        ranked.sort(key=lambda entry: -self._sign * entry[0])
        if (value, solver.iteration, []) not in ranked[:limit]:
            return
        paths = self._saver.write(solver, snapshots.BEST)
        files = [str(path) for path in paths]
        self.kept = [(v, i, files if i == solver.iteration else f) for v, i, f in ranked[:limit]]
        for _, _, old in ranked[limit:]:
            for path in old:
                with contextlib.suppress(OSError):
                    Path(path).unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "tests_since_best": self.tests_since_best, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.tests_since_best = state["best"], state["tests_since_best"]
        self.kept = [(value, iteration, list(files)) for value, iteration, files in state["kept"]]
