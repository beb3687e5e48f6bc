"""Signals: SIGINT and SIGHUP have the effect the user chose, SIGTERM saves and ends the run."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from .base import Hook

if TYPE_CHECKING:
    from ..loop import Iteration
    from ..solver import Solver

#: What a signal can do: end the run (with its final snapshot), write a snapshot, or nothing.
EFFECTS = ("stop", "snapshot", "none")


class Signals(Hook):
    """Handlers only note the signal; the loop looks at it after each update and between test
    batches.

    SIGHUP is looked at before SIGINT, as in Caffe. After a second SIGINT the run ends at once with
    KeyboardInterrupt. SIGTERM writes a snapshot, whatever snapshot_after_train says, and stops.
    """

    def __init__(self, sigint: str = "stop", sighup: str = "snapshot") -> None:
        for name, effect in (("sigint_effect", sigint), ("sighup_effect", sighup)):
            if effect not in EFFECTS:
                raise ValueError(f"{name} must be one of {', '.join(EFFECTS)}, got {effect!r}")
        self.effects = {signal.SIGTERM: "stop", signal.SIGHUP: sighup, signal.SIGINT: sigint}
        self.arrived: list[signal.Signals] = []
        self._previous: dict[signal.Signals, Any] = {}

    def before_train(self, solver: Solver) -> None:
        if threading.current_thread() is not threading.main_thread() or self._previous:
            return  # Python runs handlers in the main thread only
        for number, effect in self.effects.items():
            if effect != "none":
                self._previous[number] = signal.signal(number, self._note)

    def close(self, solver: Solver) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        arrived = signal.Signals(number)
        if arrived == signal.SIGINT and signal.SIGINT in self.arrived:
            raise KeyboardInterrupt
        if arrived not in self.arrived:
            self.arrived.append(arrived)

    def obey(self, solver: Solver) -> None:
        """Do what the signals that arrived ask for."""
        for number, effect in self.effects.items():
            if number not in self.arrived:
                continue
            if effect == "snapshot":
                self.arrived.remove(number)
                solver.request_snapshot()
            else:
                solver.stop(number.name, number)

    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        self.obey(solver)
