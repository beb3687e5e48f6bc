"""Keeping what a trunk makes of all records: under which name, and the run over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..layers.data.features import Features
from ..netdef import Net, trunk
from ..netdef.execution import prepared_process
from ..netdef.trunk import Trunk

_VERSION = "cortado features 1"
#: Called with how many rows are done and how many there are; False ends the run.
Progress = Callable[[int, int], bool]


def digest(net: Net, part: Trunk, variants: int, seed: int) -> str:
    """A name that differs wherever features may differ: layers, weights, preparation and records,
    arithmetic; the seed where records vary. The batch size is no part of it."""
    source = part.source
    execution = net.execution
    settings = (execution.precision, execution.memory_format, execution.optimize)
    varies = part.numbered.variation() is not None
    drawn = (variants, seed, source.name) if varies else ()
    found = hashlib.sha256(
        repr((_VERSION, torch.__version__, net.device.type, settings, drawn, part.tops)).encode()
    )
    message = source.spec.message
    found.update(message.transform_param.SerializeToString(deterministic=True))
    found.update(repr((message.phase, list(message.top), part.numbered.fingerprint())).encode())
    for step in part.steps:
        found.update(step.spec.message.SerializeToString(deterministic=True))
    for blob in trunk.blobs_of(part.steps):
        found.update(blob.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]


def probe(net: Net, part: Trunk, threads: int) -> dict[str, str]:
    """Which layers of the trunk cannot be run once for all, and why: tried on the first records."""
    with prepared_process(net.device, threads):
        return trunk.probe(net, part, next(_batches(net, part, 0)))


def make(
    net: Net,
    part: Trunk,
    folder: Path,
    notes: dict[str, str],
    *,
    variants: int,
    threads: int,
    progress: Progress,
) -> Features | None:
    """Run the trunk over all records, ``variants`` times, into ``folder``; None if ``progress``
    ended it. What was not completed leaves nothing behind."""
    records = part.numbered.records or 0
    rows = records * variants
    run = trunk.program(net, part)
    try:
        with prepared_process(net.device, threads):
            first = run(next(_batches(net, part, 0)))
            shapes = {name: tuple(blob.shape[1:]) for name, blob in first.items()}
            with Features.create(folder, shapes, rows, notes) as features:
                for variant in range(variants):
                    done, end = variant * records, (variant + 1) * records
                    for batch in _batches(net, part, variant):
                        if not progress(done, rows):
                            raise _Ended
                        blobs = run(batch)
                        count = min(end - done, len(next(iter(blobs.values()))))
                        features.write(done, blobs, count)
                        done += count
    except _Ended:
        return None
    progress(rows, rows)
    return Features.open(folder)


class _Ended(Exception):
    """A stop was asked for."""


def _batches(net: Net, part: Trunk, variant: int) -> Iterator[dict[str, Tensor]]:
    for tops in part.numbered.sweep(net.device, variant):
        yield dict(zip(part.source.tops, tops, strict=True))
