"""Weight fillers: how a parameter blob is initialised before training."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: Fills a CPU tensor in place, drawing from torch's global generator.
Filler = Callable[[Tensor], None]


def constant(value: float) -> Filler:
    """Every element is ``value``."""

    def fill(blob: Tensor) -> None:
        blob.fill_(value)

    return fill
