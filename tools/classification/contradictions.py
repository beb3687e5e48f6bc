"""Saying in the log where two descriptions of the preprocessing differ."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...proto import preprocessing

if TYPE_CHECKING:
    from ...netdef import Net
    from ...proto.caffe_pb2 import Preprocessing

logger = logging.getLogger(__name__)

#: Who says how images are prepared, and what is said.
Statement = tuple[str, "Preprocessing"]
WEIGHTS = "the weights"


def report(used: Statement, others: Iterable[Statement]) -> None:
    """A warning for each thing in which one of ``others`` contradicts what is ``used``."""
    who, record = used
    for other, different in others:
        for what, one, another in preprocessing.contradictions(record, different):
            logger.warning("%s: %s from %s, not %s from %s", what, one, who, another, other)


def report_data_layers(net: Net) -> None:
    """The same for data layers that feed ``net`` otherwise than its weights were trained."""
    for step in net.sources:
        blob = step.tops[0]
        own = step.source.preprocessing(blob) if step.source.delivers else None
        if own is not None and blob in net.recorded:
            report((f"the data layer {step.name!r}", own), [(WEIGHTS, net.recorded[blob])])
