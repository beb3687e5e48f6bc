"""Display: the smoothed loss, the net's outputs and the learning rate, every few iterations."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .. import events
from .base import Hook

if TYPE_CHECKING:
    from ..loop import Iteration
    from ..solver import Solver


def scalars(
    outputs: Mapping[str, Tensor], loss_weights: Mapping[str, float]
) -> tuple[events.Output, ...]:
    """Every element of every output blob; the device is waited for once."""
    if not outputs:
        return ()
    flat = torch.cat([output.reshape(-1).float() for output in outputs.values()]).tolist()
    names = [name for name, output in outputs.items() for _ in range(output.numel())]
    return tuple(
        events.Output(name, value, loss_weights.get(name, 0.0))
        for name, value in zip(names, flat, strict=True)
    )


class Display(Hook):
    """Keeps the losses of the last ``average_loss`` iterations on the device until they are shown.

    The smoothed loss is their mean. (Caffe updates it by differences; that is the same but for
    rounding, and a NaN leaves the mean once it has left the window.)
    """

    name: ClassVar[str] = "display"

    def __init__(self, interval: int, average_loss: int) -> None:
        self.interval = interval
        self.losses: deque[Tensor] = deque(maxlen=average_loss)
        self._started = time.perf_counter()
        self._last = 0

    def is_due(self, iteration: int) -> bool:
        return self.interval > 0 and iteration % self.interval == 0

    def smoothed_loss(self) -> float:
        return float(self._window().mean())

    def _window(self) -> Tensor:
        """The losses as one tensor; those of a snapshot are not where new ones are."""
        device = self.losses[-1].device
        return torch.stack([loss.to(device) for loss in self.losses])

    def before_train(self, solver: Solver) -> None:
        self._started = time.perf_counter()
        self._last = solver.iteration

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        self.losses.append(iteration.loss)
        if not self.is_due(iteration.number):
            return
        loss = self.smoothed_loss()
        outputs = scalars(iteration.outputs, solver.net.loss_weights)
        seconds = time.perf_counter() - self._started
        rate = (iteration.number - self._last) / seconds if seconds > 0 else 0.0
        self._started, self._last = time.perf_counter(), iteration.number
        solver.emit(events.Displayed(iteration.number, rate, seconds, self.interval, loss, outputs))

    def before_update(self, solver: Solver, iteration: Iteration) -> None:
        if self.is_due(iteration.number):
            solver.emit(events.RateDisplayed(iteration.number, iteration.rate))

    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        norm, limit = solver.updater.norm, solver.parameters.clip_gradients
        if norm is None or not self.is_due(iteration.number):
            return
        value = float(norm)
        if value > limit:
            solver.emit(events.GradientsClipped(iteration.number, value, limit, limit / value))

    def finish(self, solver: Solver) -> None:
        """One more forward pass shows the loss after the last update, as in Caffe."""
        if not self.is_due(solver.iteration):
            return
        with torch.no_grad():
            _, loss = solver.net.run(solver.net.next_batch())
        self.losses.append(loss)
        solver.emit(events.FinalLoss(solver.iteration, self.smoothed_loss()))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self._window().tolist() if self.losses else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses.clear()
        self.losses.extend(torch.tensor(value) for value in state["losses"])
