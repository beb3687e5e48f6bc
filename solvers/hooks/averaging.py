"""Averaged weights: a running mean of the weights that is tested and saved beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...netdef import Net
from .base import Hook
from .testing import run_tests

if TYPE_CHECKING:
    from ..loop import Iteration
    from ..solver import Solver

#: Label of the averaged weights in events and file names.
LABEL = "ema"


class Averaging(Hook):
    """After each update e = decay * e + (1 - decay) * w, for all parameters and statistics.

    Whenever the test nets were tested with the raw weights, they are tested with the average too.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self.decay = decay
        self._weights = [param.tensor.detach() for param in net.params]
        self.average = [tensor.clone() for tensor in self._weights]

    @torch.no_grad()
    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        torch._foreach_lerp_(self.average, self._weights, 1 - self.decay)

    def after_tests(self, solver: Solver) -> None:
        with self.applied():
            run_tests(solver, LABEL)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The nets hold the average while the block runs."""
        raw = [tensor.clone() for tensor in self._weights]
        torch._foreach_copy_(self._weights, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._weights, raw)

    def further_weights(self) -> dict[str, list[Tensor]]:
        return {LABEL: self.average}

    @torch.no_grad()
    def load_further_weights(self, weights: dict[str, list[Tensor]]) -> None:
        """Without an average in the snapshot it starts from the weights that were restored."""
        torch._foreach_copy_(self.average, weights.get(LABEL, self._weights))
