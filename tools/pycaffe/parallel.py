"""What scripts for several GPUs ask for, as far as one process can answer.

Cortado trains on one GPU. Scripts that start a process for each GPU find their calls here and run
with one process.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from . import mode

if TYPE_CHECKING:
    from .solver import Solver


def has_nccl() -> bool:
    """False: gradients are not exchanged between scripts."""
    return False


class NCCL:
    """Stands where Caffe joins the solvers of several processes; RuntimeError if there are
    several."""

    def __init__(self, solver: Solver, uid: bytes | str) -> None:
        if mode.solver_count() > 1:
            raise RuntimeError(
                f"{mode.solver_count()} solvers cannot train together; run one, with "
                f"{mode.solver_count()} times the iter_size for the same updates"
            )
        self.solver = solver
        self.uid = uid

    @staticmethod
    def new_uid() -> bytes:
        """A name for a group of solvers."""
        return secrets.token_hex(16).encode()

    def bcast(self) -> None:
        """Nothing to send: there is one solver."""

    def __call__(self, layer: int) -> None:
        """Nothing to do after a layer's backward, where Caffe sums its gradients."""
