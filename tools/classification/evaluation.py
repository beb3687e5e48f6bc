"""A model on labelled images: reading, preparing, running, counting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from ...layers.data.parallel import chunks, ordered_map
from ...layers.data.preprocessing import CENTRE, Views
from .measures import Measures, Verdict
from .model import Model
from .samples import Prepared, Preparer, Samples, numbers_of

#: Crops that one thread prepares at a time.
CHUNK = 10


def evaluate(
    model: Model,
    samples: Samples,
    views: Views = CENTRE,
    *,
    limit: int | None = None,
    record_order: str = "",
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    note: Callable[[Verdict], None] | None = None,
) -> Measures:
    """Count over ``samples`` (at most ``limit``) how good ``model`` is on the ``views`` of each.

    Samples that cannot be read or do not fit are listed in the result. ``record_order`` is the
    order of channels of raw records, by default what the model's data layer says. ``progress`` is
    told how many samples were dealt with, ``note`` what was found for each.
    """
    measures = Measures(len(model.names))
    prepare = Preparer(
        samples,
        model.preprocessing,
        views,
        classes=len(model.names),
        order=record_order or model.record_order,
        numbers=numbers_of(samples.classes, model.names),
    )
    chosen = islice(samples, limit)
    parts = ordered_map(prepare, chunks(chosen, max(1, CHUNK // views.count)), threads)
    for keys, labels, inputs in _batches(_good(parts, measures, progress), model.batch):
        for verdict in measures.add(keys, labels, model.scores(inputs)):
            if note is not None:
                note(verdict)
    return measures


def _good(
    parts: Iterable[Prepared], measures: Measures, progress: Callable[[int], None] | None
) -> Iterator[Prepared]:
    """The parts that have something; what is bad in them is listed."""
    for part in parts:
        measures.bad += part.bad
        if progress is not None:
            progress(part.count)
        if part.inputs is not None:
            yield part


def _batches(
    parts: Iterable[Prepared], crops: int
) -> Iterator[tuple[list[str], list[int], Tensor]]:
    """Keys, labels and inputs of so many samples that they have about ``crops`` views."""
    keys: list[str] = []
    labels: list[int] = []
    inputs: list[Tensor] = []
    for part in parts:
        assert part.inputs is not None
        keys += part.keys
        labels += part.labels
        inputs.append(part.inputs)
        size = max(1, crops // part.inputs.shape[1])
        while len(keys) >= size:
            together = torch.cat(inputs)
            yield keys[:size], labels[:size], together[:size]
            keys, labels, inputs = keys[size:], labels[size:], [together[size:]]
    if keys:
        yield keys, labels, torch.cat(inputs)
