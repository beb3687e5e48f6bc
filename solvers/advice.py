"""What is legal in a solver but probably not meant; told by ``cortado check``."""

from __future__ import annotations

from collections.abc import Iterator

from ..netdef.blueprint import Blueprint
from ..proto.errors import Fault
from .requirements import SolverDocument, place


def coverage(document: SolverDocument, index: int, plan: Blueprint) -> Iterator[Fault]:
    """Whether test_iter batches are the whole set of test net ``index``."""
    if index >= len(document.message.test_iter):
        return
    batches = document.message.test_iter[index]
    for source in plan.sources:
        records = source.source.records
        if not records or not source.tops or not source.top_shapes[0]:
            continue
        seen = batches * source.top_shapes[0][0]
        needed = -(-records // source.top_shapes[0][0])
        if batches == needed:
            continue
        which = "some of them twice" if seen > records else "not all of them"
        yield Fault(
            f"test_iter {batches} x batch {source.top_shapes[0][0]} = {seen:,} images, but layer "
            f"{source.name!r} has {records:,}: {which} (test_iter: {needed} covers the set)",
            place(document, f"test_iter.{index}"),
        )
