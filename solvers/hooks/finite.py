"""Stop at the first loss or gradient that is NaN or infinite, and keep what shows it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...proto.errors import CortadoError, NumericError
from .. import diagnosis
from .base import Hook

if TYPE_CHECKING:
    from ..loop import Iteration
    from ..solver import Solver

#: How many keys of a batch a message names.
SHOWN_KEYS = 8


class Finite(Hook):
    """Checks loss and gradients of each iteration before its update.

    On the CPU the check is immediate, and the weights are still those before the step. On other
    devices the answer is fetched one iteration later, so that no iteration waits for its own
    result, and always before a snapshot: a good one is never followed by a bad one. Until then the
    answer stays on the device and keeps the fused rules (SGD, Nesterov, Adam, AdamW) from making
    the step; with the other rules the bundle has the weights after it.
    """

    def __init__(self) -> None:
        self._pending: tuple[Iteration, Tensor] | None = None

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        gradients = solver.updater.gradients()
        total = _sum(iteration.loss, gradients)
        if total.device.type == "cpu":
            if not math.isfinite(total):
                raise NumericError(self._report(solver, iteration))
            return
        self._check(solver)
        finite = total.isfinite()
        solver.updater.skip = (~finite).float()
        self._pending = (iteration, finite.to("cpu", non_blocking=True))
        self._copied = torch.cuda.Event()
        self._copied.record()

    def before_snapshot(self, solver: Solver) -> None:
        self._check(solver)

    def after_train(self, solver: Solver) -> None:
        self._check(solver)

    def _check(self, solver: Solver) -> None:
        if self._pending is None:
            return
        (iteration, finite), self._pending = self._pending, None
        self._copied.synchronize()
        if not bool(finite):
            raise NumericError(self._report(solver, iteration))

    def _report(self, solver: Solver, iteration: Iteration) -> str:
        loss = float(iteration.loss)
        evidence = diagnosis.Evidence(iteration.batch, iteration.generators, iteration.keys)
        first = diagnosis.examine(solver.net, evidence).first
        where = first or "it does not show when the batch is run again"
        message = f"iteration {iteration.number}: loss is {loss:g}; {where}"
        if iteration.keys:
            message += f"; batch: {_listed(iteration.keys)}"
        prefix = solver.parameters.snapshot_prefix
        if not prefix:
            return message
        folder = Path(f"{prefix}_not_finite_iter_{iteration.number}")
        try:
            diagnosis.write_bundle(folder, solver.net, evidence, message)
        except (OSError, CortadoError) as error:
            return f"{message}; {folder} could not be written: {error}"
        return f"{message}; net, weights and batch are in {folder}"


def _sum(loss: Tensor, gradients: list[Tensor]) -> Tensor:
    """One number that is finite if the loss and every gradient are, a 0-d tensor.

    On the CPU plain sums are the fastest way to look at every value; elsewhere norms, which take a
    few launches for all gradients together.
    """
    if loss.device.type == "cpu":
        parts = [gradient.sum() for gradient in gradients]
    else:
        parts = list(torch._foreach_norm(gradients)) if gradients else []
    return torch.stack([loss, *parts]).sum()


def _listed(keys: Sequence[str]) -> str:
    """The keys for a message; all of them are in the bundle."""
    rest = len(keys) - SHOWN_KEYS
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
