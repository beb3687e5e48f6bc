"""What an update rule is: one function over lists of tensors, and what it declares about itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import Tensor

from ...proto.caffe_pb2 import SolverParameter
from ...proto.errors import nearest
from ..requirements import Requirement

Tensors = list[Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """The numbers of one update of one group of parameters.

    ``rate`` and ``decay`` already contain the group's multipliers. ``count`` is 1 for the first
    update of a run. ``scale``, a tensor of one element, is what the gradients must still be
    multiplied by (1 / iter_size, clipping); None means 1. The functions of
    rules that do not declare ``prepares_gradient`` see ``scale`` None and, unless they declare
    ``decouples_decay``, ``decay`` 0: the caller has applied them.
    """

    rate: float
    decay: float
    count: int
    solver: SolverParameter
    scale: Tensor | None = None


Function = Callable[[Tensors, Tensors, Sequence[Tensors], Step], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A registered rule.

    ``slots`` counts the history blobs a parameter has; a snapshot holds the first of all
    parameters, then the second. ``prepares_gradient``: the function applies Step.scale and L2 decay
    itself, because its kernel does so without another pass over memory. ``decouples_decay``: decay
    is part of the rule and not added to the gradient. ``ignores_zero_rate``: with rate 0 and an
    all-zero history nothing moves, so frozen parameters need not be visited. ``coasts``: the rate
    is part of the history, so that what moved goes on for a while when its rate becomes 0.
    ``elementwise``: each number is updated by its own gradient and history alone.
    """

    name: str
    function: Function
    slots: int
    requirements: tuple[Requirement, ...] = ()
    prepares_gradient: bool = False
    decouples_decay: bool = False
    ignores_zero_rate: bool = False
    coasts: bool = False
    elementwise: bool = True

    def __call__(
        self, parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step
    ) -> None:
        self.function(parameters, gradients, history, step)


_rules: dict[str, Rule] = {}


def register(name: str, *, slots: int, **declared: Any) -> Callable[[Function], Function]:
    """Make a function ``(parameters, gradients, history, step)`` available as ``type: "<name>"``.

    The function updates parameters and history in place, and may use the gradients as scratch.
    ``history`` holds one list of tensors for each slot. The other arguments are Rule's fields.
    """

    def enter(function: Function) -> Function:
        _rules[name] = Rule(name, function, slots, **declared)
        return function

    return enter


@cache
def _load_all() -> None:
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")


def rule_names() -> list[str]:
    """All registered solver types, sorted."""
    _load_all()
    return sorted(_rules)


def find(name: str) -> Rule:
    """The rule registered as ``name``; a LookupError with the nearest spelling if there is none."""
    _load_all()
    if name not in _rules:
        known = ", ".join(rule_names())
        raise LookupError(f'type must be one of {known}, got "{name}"{nearest(name, _rules)}')
    return _rules[name]
