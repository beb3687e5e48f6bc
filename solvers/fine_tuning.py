"""Starting from trained weights: a new head, a frozen trunk."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..netdef import Net
from ..proto.errors import ConfigError, nearest
from . import checks, overrides
from .requirements import SolverDocument


def check_patterns(patterns: Sequence[str], net: Net) -> None:
    """ConfigError for a pattern of layers to start anew that matches no layer with parameters."""
    known = [step.name for step in net.steps if step.layer.blobs]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(
                f"layers to start anew: {pattern!r} matches no layer with parameters"
                f"{nearest(pattern, known)} (layers: {', '.join(known)})"
            )


def with_head(document: SolverDocument, layer: str, classes: int) -> SolverDocument:
    """The solver with ``classes`` outputs of its net's ``layer``; the document stays as it is."""
    return overrides.apply(document, [f"net.{layer}.num_output={classes}"])


def frozen(document: SolverDocument, patterns: Sequence[str]) -> SolverDocument:
    """The solver with a rule that learns nothing in the layers that ``patterns`` match.

    BatchNorm layers among them use the statistics that they came with. Patterns are those of
    ``param_rule``; the document stays as it is.
    """
    result = overrides.apply(document, [])
    result, name = overrides.inlined(result)
    net = getattr(result.message, name)
    for pattern in patterns:
        result.message.param_rule.add(pattern=pattern, lr_mult=0)
        for layer in net.layer:
            if layer.type == "BatchNorm" and checks.matches(pattern, layer.name):
                layer.batch_norm_param.use_global_stats = True
    return result
