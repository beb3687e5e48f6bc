"""BatchNorm, Scale and ReLU after one another as one operation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch.nn.functional as F
from torch import Tensor

from ...layers.activations import ReLU
from ...layers.batch_norm import BatchNorm
from ...layers.scale import Scale
from ..steps import Step
from .readers import Flow, only_reader, plain, running, trace


class Normalisation:
    """A BatchNorm with the Scale, and perhaps the ReLU, that follows it.

    Torch's batch_norm multiplies and adds in the pass that normalises anyway, and the ReLU works in
    the memory of its result, which autograd does not need.
    """

    def __init__(self, norm: BatchNorm, scale: Scale, relu: bool) -> None:
        self.norm = norm
        self.scale = scale
        self.relu = relu

    def __call__(self, x: Tensor) -> Tensor:
        scale = self.scale
        y = self.norm.normalize(x, scale.weight, scale.bias if scale.bias_term else None)
        return F.relu_(y) if self.relu else y


def fuse_batch_norm(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """``steps`` with each BatchNorm and its Scale (and ReLU) as one."""
    flow = trace(steps, outputs)
    gone: set[int] = set()
    result: list[Step] = []
    for index, step in enumerate(steps):
        if index in gone:
            continue
        chain = _chain(steps, flow, index)
        if chain:
            gone.update(chain)
            step = _fused([step, *(steps[each] for each in chain)])
        result.append(step)
    return result


def _chain(steps: Sequence[Step], flow: Flow, index: int) -> list[int]:
    """The steps that can join the BatchNorm at ``index``: a Scale, or that and a ReLU."""
    step = steps[index]
    if not isinstance(step.layer, BatchNorm) or not plain(step):
        return []
    following = only_reader(flow, index)
    if following is None or not _joins(steps[following], step.layer.channels):
        return []
    last = only_reader(flow, following)
    if last is None or not isinstance(relu := steps[last].layer, ReLU) or relu.negative_slope:
        return [following]
    return [following, last] if plain(steps[last]) else [following]


def _joins(step: Step, channels: int) -> bool:
    layer = step.layer
    return (
        isinstance(layer, Scale)
        and plain(step)
        and len(step.bottoms) == 1
        and layer.axis == 1
        and tuple(layer.weight.shape) == (channels,)
    )


def _fused(parts: Sequence[Step]) -> Step:
    """One step in the place of ``parts``; blobs between them never come to be."""
    first, last = parts[0], parts[-1]
    norm, scale = first.layer, parts[1].layer
    assert isinstance(norm, BatchNorm)
    assert isinstance(scale, Scale)
    between = {top for part in parts[:-1] for top in part.tops} - {*first.bottoms, *last.tops}
    early = {name for part in parts[:-1] for name in part.dead} - {*between, *last.tops}
    dead = dict.fromkeys([*sorted(early), *(name for name in last.dead if name not in between)])
    return running(
        first,
        Normalisation(norm, scale, relu=len(parts) == 3),
        tops=last.tops,
        top_shapes=last.top_shapes,
        in_place=frozenset(),
        needs_backward=any(part.needs_backward for part in parts),
        dead=tuple(dead),
    )
