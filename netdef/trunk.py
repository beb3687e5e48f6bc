"""The trunk of a net: layers whose tops depend on a record alone and stay what they are.

Frozen layers at the start of a net make the same of a record in every epoch. :func:`find` says
which layers these are as far as the definition tells, :func:`probe` tries them on a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..layers.source import NumberedSource
from ..proto.errors import LayerError
from .net import Net
from .steps import SourceStep, Step, run_steps

#: A few records show what a layer does as well as many.
PROBED = 8
#: Two results are taken for the same if they differ by at most this part of the largest value: a
#: product may be summed in another order for another batch.
TOLERANCE = 1e-3


@dataclass(slots=True)
class Trunk:
    """The layers that can be run once for all records of ``source``.

    ``tops`` are the blobs that the rest of the net needs of them, and of the source itself.
    ``end`` is the first layer with parameters, or refused, that reads one of their blobs.
    """

    source: SourceStep
    steps: list[Step] = field(default_factory=list)
    tops: list[str] = field(default_factory=list)
    end: Step | None = None

    @property
    def numbered(self) -> NumberedSource:
        assert isinstance(self.source.source, NumberedSource)
        return self.source.source

    @property
    def has_parameters(self) -> bool:
        """Whether anything but plumbing is in it."""
        return any(step.layer.blobs for step in self.steps)


def memory(tensors: Iterable[Tensor]) -> set[int]:
    """What tells the memory of tensors; layers that share a parameter have the same."""
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def blobs_of(steps: Iterable[Step]) -> list[Tensor]:
    """The parameter blobs of layers."""
    return [step.layer.blob(index) for step in steps for index in range(len(step.layer.blobs))]


def find(net: Net, changing: Collection[int], refused: Collection[str] = ()) -> list[Trunk]:
    """The largest trunk of each of the net's numbered sources, in net order.

    Layers whose blobs lie in ``changing`` memory are no part of it, nor are those called in
    ``refused``, losses, and layers whose tops have no entry for each record.
    """
    trunks: list[Trunk] = []
    made: dict[str, Trunk] = {}
    read_by_rest: set[str] = set()
    for step in net.order:
        if isinstance(step, SourceStep):
            if isinstance(step.source, NumberedSource):
                trunks.append(Trunk(step))
                made.update(dict.fromkeys(step.tops, trunks[-1]))
            continue
        owner = _owner(step, made)
        if (
            owner is not None
            and step.name not in refused
            and _can_be_kept(step, owner, changing)
            and read_by_rest.isdisjoint(step.tops)
        ):
            owner.steps.append(step)
            made.update(dict.fromkeys(step.tops, owner))
            continue
        for name in step.bottoms:
            if name in made:
                read_by_rest.add(name)
                _want(made[name], name)
                if made[name].end is None and (step.layer.blobs or step.name in refused):
                    made[name].end = step
        for name in step.tops:
            made.pop(name, None)
    for name in net.outputs:
        if name in made:
            _want(made[name], name)
    return trunks


def _owner(step: Step, made: Mapping[str, Trunk]) -> Trunk | None:
    """The trunk that all bottoms come from."""
    owners = [made.get(name) for name in step.bottoms]
    return owners[0] if owners and all(each is owners[0] for each in owners) else None


def _can_be_kept(step: Step, owner: Trunk, changing: Collection[int]) -> bool:
    batch = owner.source.top_shapes[0][0]
    shapes = (*step.bottom_shapes, *step.top_shapes)
    return (
        bool(step.tops)
        and not step.losses
        and step.layer.repeatable
        and all(shape[:1] == (batch,) for shape in shapes)
        and memory(blobs_of([step])).isdisjoint(changing)
    )


def _want(trunk: Trunk, name: str) -> None:
    if name not in trunk.tops:
        trunk.tops.append(name)


def program(net: Net, trunk: Trunk) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """What computes the trunk's tops of a batch of its source, just as the whole net would."""
    steps = net.optimized(trunk.steps, trunk.tops)

    @torch.no_grad()
    def run(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        blobs = {name: net.arranged(blob) for name, blob in batch.items()}
        with net.execution.context(net.device):
            run_steps(steps, blobs)
        return {name: blobs[name] for name in trunk.tops}

    return run


@torch.no_grad()
def probe(net: Net, trunk: Trunk, batch: Mapping[str, Tensor]) -> dict[str, str]:
    """Which layers of the trunk cannot be run once for all, by name, and why.

    Each layer runs on the batch and on one with other records in other places: what it makes of a
    record that is in both must be the same, without a random number or a change of its state.
    Whatever is changed on the way is restored.
    """
    try:
        return _probe(net, trunk, {name: blob[:PROBED] for name, blob in batch.items()})
    except (LayerError, RuntimeError):  # a layer takes batches of this one size only
        return _probe(net, trunk, batch)


def _probe(net: Net, trunk: Trunk, batch: Mapping[str, Tensor]) -> dict[str, str]:
    refused: dict[str, str] = {}
    blobs = {name: net.arranged(blob) for name, blob in batch.items()}
    others = {name: net.arranged(_moved(blob)) for name, blob in batch.items()}
    devices = [net.device] if net.device.type == "cuda" else []
    with torch.random.fork_rng(devices), net.execution.context(net.device):
        for step in trunk.steps:
            if any(name not in blobs for name in step.bottoms):
                continue
            reason = _try(step, net.device, blobs, others)
            if reason:
                refused[step.name] = reason
            for name in step.tops if reason else step.dead:
                blobs.pop(name, None)
                others.pop(name, None)
    return refused


def _try(
    step: Step, device: torch.device, blobs: dict[str, Tensor], others: dict[str, Tensor]
) -> str:
    """Run one layer on both batches; why it cannot be kept, or nothing."""
    state = list(step.layer.buffers())
    saved, versions = [each.clone() for each in state], [each._version for each in state]
    before = _generators(device)
    try:
        for each in (blobs, others):
            # Bottoms rewritten in place would be seen by layers that ran before.
            each.update({name: each[name].clone() for name in step.bottoms if name in step.tops})
            run_steps([step], each, keep=True)
        changed = [each._version for each in state] != versions
    finally:
        for buffer, value in zip(state, saved, strict=True):
            buffer.copy_(value)
    if changed:
        return "keeps statistics of the records it sees"
    if any(map(_differ, before, _generators(device))):
        return "draws random numbers"
    if not all(_same(blobs[name], others[name]) for name in step.tops):
        return "mixes the records of a batch"
    return ""


def _moved(blob: Tensor) -> Tensor:
    """The second half of a batch, then copies of its first record."""
    half = len(blob) // 2
    return torch.cat([blob[half:], blob[:1].expand(half, *blob.shape[1:])])


def _same(blob: Tensor, moved: Tensor) -> bool:
    half = len(blob) // 2
    one, two = blob[half:].float(), moved[: len(blob) - half].float()
    scale = float(one.abs().max()) if one.numel() else 0.0
    return bool(torch.allclose(one, two, rtol=0, atol=TOLERANCE * scale, equal_nan=True))


def _generators(device: torch.device) -> Sequence[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _differ(one: Tensor, two: Tensor) -> bool:
    return not torch.equal(one, two)
