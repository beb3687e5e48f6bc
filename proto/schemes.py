"""Names that stand for weights where a path could: ``zoo:resnet50``.

Who knows how to open names of a scheme registers itself here; who opens weights asks here first, so
that the rooms below need not know those above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .weights import Weights

#: Opens what follows the colon of a name.
Opener = Callable[[str], "Weights"]

_OPENERS: dict[str, Opener] = {}


def register(scheme: str, opener: Opener) -> None:
    """Let ``opener`` open names that begin with ``scheme`` and a colon."""
    _OPENERS[scheme] = opener


def opener_of(name: str) -> tuple[Opener, str] | None:
    """Who opens ``name``, and what follows its scheme; None if it has no registered scheme."""
    scheme, colon, rest = name.partition(":")
    return (_OPENERS[scheme], rest) if colon and scheme in _OPENERS else None
