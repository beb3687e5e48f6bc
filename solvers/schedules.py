"""Epochs turned into iterations, once the net and the size of its data are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..netdef import Net
from ..proto.errors import ConfigError, Fault
from .requirements import SolverDocument, place

_FIELDS = {"max_epoch": "max_iter", "test_epoch": "test_interval", "snapshot_epoch": "snapshot"}


def resolve(document: SolverDocument, net: Net, test_nets: Sequence[Net]) -> None:
    """Write max_iter, test_interval and snapshot for the epochs that the solver gives.

    An epoch is one pass over the train net's largest source. A test_iter of 0 becomes as many
    batches as cover that test net's whole data. ConfigError if both forms are given, or if no
    source knows its number of records.
    """
    solver = document.message
    _whole_test_sets(document, test_nets)
    given = [name for name in _FIELDS if solver.HasField(name)]
    if not given:
        return
    both = [name for name in given if solver.HasField(_FIELDS[name])]
    if both:
        raise ConfigError(
            Fault(f"{name} and {_FIELDS[name]} exclude each other", place(document, name))
            for name in both
        )
    batches = epoch_batches(net)
    if batches is None:
        raise ConfigError(
            Fault(
                f"{given[0]} needs a data source that knows its number of records; "
                f"net {net.name!r} has none",
                place(document, given[0]),
            )
        )
    for name in given:
        iterations = math.ceil(getattr(solver, name) * batches / solver.iter_size)
        setattr(solver, _FIELDS[name], max(1, iterations))


def _whole_test_sets(document: SolverDocument, test_nets: Sequence[Net]) -> None:
    for index, net in enumerate(test_nets):
        if document.message.test_iter[index] > 0:
            continue
        batches = epoch_batches(net)
        if batches is None:
            raise ConfigError(
                Fault(
                    "test_iter must be greater than 0 where no data source knows its number of "
                    f"records, got {document.message.test_iter[index]}",
                    place(document, f"test_iter.{index}"),
                )
            )
        document.message.test_iter[index] = batches


def epoch_batches(net: Net) -> int | None:
    """Batches that one pass over the largest source takes; None if no source has a size."""
    counts = []
    for step in net.sources:
        records = step.source.records
        if records is not None:
            counts.append(math.ceil(records / step.source.shapes[0][0]))
    return max(counts, default=None)
