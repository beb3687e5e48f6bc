"""The plans of the zoo's nets for use, each drawn once for all tests."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
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
    plan = zoo.plan(index.find(name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for step in plan.steps:
            step.layer(*(torch.empty(shape, device="meta") for shape in step.bottom_shapes))
    return Counted(plan, counter.get_total_flops())
