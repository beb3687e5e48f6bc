"""Training: update rules, learning-rate policies, the loop with its hooks, snapshots.

``Solver`` is imported on first use, because it brings in torch; events are plain values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .solver import Outcome, Solver

__all__ = ["Outcome", "Solver"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import solver

        return getattr(solver, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
