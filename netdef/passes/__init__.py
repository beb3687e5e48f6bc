"""Rewrites of a net's steps that make it faster and change nothing that anyone can see.

Each pass takes the steps in running order and gives new ones; the originals stay as they are, and
with :attr:`Net.keep_blobs` they are what runs, so that every blob of the prototxt is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..steps import Step
from .batch_norm import fuse_batch_norm
from .fold import fold_batch_norm
from .in_place import reuse_memory
from .narrow import narrow
from .prepack import available as packs
from .prepack import prepack
from .prune import drop_unused
from .recompute import recompute
from .rectify import fuse_rectifiers

__all__ = [
    "drop_unused",
    "fold_batch_norm",
    "fuse_batch_norm",
    "fuse_rectifiers",
    "narrow",
    "optimize",
    "packs",
    "prepack",
    "recompute",
    "reuse_memory",
]


def optimize(
    steps: Sequence[Step], outputs: Iterable[str], patterns: Sequence[str] = ()
) -> list[Step]:
    """All passes over ``steps`` of a net with these ``outputs``.

    Layers whose names match ``patterns`` are computed again in backward.
    """
    kept = frozenset(outputs)
    result = drop_unused(steps, kept)
    result = fuse_rectifiers(fuse_batch_norm(result, kept), kept)
    if patterns:
        result = recompute(result, kept, patterns)
    return reuse_memory(result, kept)
