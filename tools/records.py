"""Reading a net's data once through, as ``cortado check --data`` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..proto.errors import CortadoError, Fault

if TYPE_CHECKING:
    from ..netdef.blueprint import Blueprint
    from ..netdef.steps import SourceStep

#: No more classes than this are listed as missing.
LISTED = 8


def read_through(plan: Blueprint) -> Iterator[str | Fault]:
    """For each source with a known number of records: a line that says what is in it.

    Every record is read and prepared as in training, so that sizes, the mean and labels are held
    against the net; what is wrong raises the source's own error. Classes of which there is no
    record are Faults, to be taken as warnings.
    """
    for source in plan.sources:
        if source.source.records:
            yield from _read(source, plan)


def _read(source: SourceStep, plan: Blueprint) -> Iterator[str | Fault]:
    import torch

    records = source.source.records or 0
    batch = source.top_shapes[0][0]
    labelled = _reader_of_labels(source, plan)
    seen: set[int] = set()
    try:
        for _ in range(-(-records // batch)):
            tops = source.source.next(torch.device("cpu"))
            if labelled is not None:
                seen.update(int(value) for value in tops[labelled[0]].unique().tolist())
    except CortadoError as error:
        raise type(error)(f"layer {source.name!r}: {error}") from None
    finally:
        source.source.close()
    shape = "x".join(map(str, source.top_shapes[0][1:]))
    yield f"{source.name}: {records:,} records of {shape} are readable and fit the net"
    if labelled is not None:
        missing = sorted(set(range(labelled[1])) - seen)
        if missing:
            listed = ", ".join(map(str, missing[:LISTED])) + (" ..." if missing[LISTED:] else "")
            yield source.spec.fault(
                f"{len(missing)} of the net's {labelled[1]} classes have no record: {listed}"
            )


def _reader_of_labels(source: SourceStep, plan: Blueprint) -> tuple[int, int] | None:
    """Which top holds class labels, and how many classes the net knows."""
    for step in plan.steps:
        found = step.layer.label_range(step.bottom_shapes)
        if found is None or found.bottom >= len(step.bottoms):
            continue
        blob = step.bottoms[found.bottom]
        if blob in source.tops:
            return source.tops.index(blob), found.classes
    return None
