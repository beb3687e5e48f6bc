"""Everything that can be known to be wrong with a solver before a net is built."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

from ..proto.errors import ConfigError, Fault
from . import nets, policies
from .requirements import Requirement, SolverDocument, at_least, faults, fraction, one_of, place
from .rules import find

_GENERAL: tuple[Requirement, ...] = (
    at_least("average_loss", 1, optional=True),
    at_least("iter_size", 1, optional=True),
    at_least("display", 0, optional=True),
    at_least("snapshot", 0, optional=True),
    at_least("test_interval", 0, optional=True),
    at_least("max_iter", 0, optional=True),
    at_least("weight_decay", 0, optional=True),
    at_least("max_epoch", 0, optional=True),
    at_least("test_epoch", 0, optional=True),
    at_least("snapshot_epoch", 0, optional=True),
    at_least("plateau_patience", 0, optional=True),
    at_least("early_stop_patience", 0, optional=True),
    at_least("keep_best", 0, optional=True),
    at_least("gradient_noise", 0, optional=True),
    at_least("threads", 0, optional=True),
    fraction("ema_decay"),
    one_of("regularization_type", "L2", "L1"),
)


def check(document: SolverDocument) -> None:
    """Raise ConfigError with all independent faults of a solver."""
    found = [
        *nets.check(document),
        *faults(_GENERAL, document),
        *_rule(document),
        *policies.check(document),
        *_early_update(document),
        *_watching(document),
        *_patterns(document),
        *_prefix(document),
    ]
    if found:
        raise ConfigError(found)


def _rule(document: SolverDocument) -> Iterator[Fault]:
    solver = document.message
    try:
        rule = find(solver.type)
    except LookupError as error:
        yield Fault(str(error.args[0]), place(document, "type"))
        return
    yield from faults(rule.requirements, document, f"type {rule.name}")
    if rule.decouples_decay and solver.regularization_type != "L2":
        yield Fault(
            f'regularization_type must be "L2" with type {rule.name}, whose decay is no part of '
            f'the gradient, got "{solver.regularization_type}"',
            place(document, "regularization_type"),
        )


def _early_update(document: SolverDocument) -> Iterator[Fault]:
    """Nothing may need gradients that are gone when backward is over."""
    solver = document.message
    if not solver.update_in_backward:
        return
    needing = {
        "iter_size": solver.iter_size > 1,
        "clip_gradients": solver.clip_gradients >= 0,
        "debug_info": solver.debug_info,
        "snapshot_diff": solver.snapshot_diff,
    }
    for name, needs in needing.items():
        if needs:
            yield Fault(
                f"{name} needs all gradients at once, which update_in_backward does not keep",
                place(document, name),
            )


def _watching(document: SolverDocument) -> Iterator[Fault]:
    solver = document.message
    for name in ("early_stop_patience", "keep_best"):
        if getattr(solver, name) and not solver.watch:
            yield Fault(
                f"{name} needs watch: the name of a test net's output", place(document, name)
            )
    if solver.watch and not 0 <= solver.watch_net < len(solver.test_iter):
        yield Fault(
            f"watch looks at test net #{solver.watch_net}, but the solver has "
            f"{len(solver.test_iter)} test nets",
            place(document, "watch_net" if solver.HasField("watch_net") else "watch"),
        )


def _patterns(document: SolverDocument) -> Iterator[Fault]:
    for index, rule in enumerate(document.message.param_rule):
        try:
            re.compile(rule.pattern)
        except re.error as error:
            if not any(sign in rule.pattern for sign in "*?["):
                yield Fault(
                    f'param_rule: pattern "{rule.pattern}" is no regular expression: {error}',
                    place(document, f"param_rule.{index}.pattern"),
                )
        if not rule.pattern:
            yield Fault("param_rule needs a pattern", place(document, f"param_rule.{index}"))


def matches(pattern: str, layer: str) -> bool:
    """Whether a param_rule's pattern, read as shell pattern or regular expression, is the layer's
    whole name."""
    if fnmatch.fnmatchcase(layer, pattern):
        return True
    try:
        return re.fullmatch(pattern, layer) is not None
    except re.error:
        return False


def _prefix(document: SolverDocument) -> Iterator[Fault]:
    """The snapshot folder must exist before hours of training end in it."""
    solver = document.message
    if not (solver.snapshot or solver.HasField("snapshot_epoch")):
        return
    if not solver.snapshot_prefix:
        yield Fault("snapshot needs snapshot_prefix", place(document, "snapshot"))
        return
    folder = Path(solver.snapshot_prefix).parent
    if not folder.is_dir():
        yield Fault(
            f"snapshot_prefix {solver.snapshot_prefix!r}: folder {str(folder)!r} does not exist",
            place(document, "snapshot_prefix"),
        )
