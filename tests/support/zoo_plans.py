"""The plans of the zoo's nets for use, each drawn once for all tests."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from cortado.model_zoo import index, zoo
from cortado.netdef.blueprint import Blueprint


@dataclass(frozen=True)
class Counted:
    """A plan, and the operations of its layers as torch counted them when each ran once."""

    plan: Blueprint
    operations: int


@functools.cache
def counted(name: str) -> Counted:
    """The plan of the model ``name`` for one image."""
    with FlopCounterMode(display=False) as counter:
        plan = zoo.plan(index.find(name))
    return Counted(plan, counter.get_total_flops())
