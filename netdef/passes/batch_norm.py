"""BatchNorm, Scale, a sum and ReLU after one another as one operation."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from torch import Tensor

from ...layers.activations import ReLU
from ...layers.batch_norm import BatchNorm
from ...layers.eltwise import SUM, Eltwise
from ...layers.scale import Scale
from ..steps import Step
from .readers import Flow, only_reader, plain, running, trace


class Normalisation:
    """A BatchNorm with the Scale, and perhaps the sum with another blob and the ReLU, after it.

    All is done in the pass over memory that normalises anyway; where torch's operations run, the
    ReLU works in the memory of its bottom, which autograd does not need.
    """

    def __init__(self, norm: BatchNorm, scale: Scale, relu: bool) -> None:
        self.norm = norm
        self.scale = scale
        self.relu = relu

    def __call__(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        scale = self.scale
        bias = scale.bias if scale.bias_term else None
        return self.norm.normalize(x, scale.weight, bias, addend, self.relu)


def fuse_batch_norm(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """``steps`` with each BatchNorm and its Scale (and sum, and ReLU) as one."""
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
    """The steps that can join the BatchNorm at ``index``: a Scale, maybe a sum, maybe a ReLU."""
    norm = steps[index].layer
    if not isinstance(norm, BatchNorm) or not plain(steps[index]):
        return []
    following = only_reader(flow, index)
    if following is None or not _joins(steps[following], norm.channels):
        return []
    chain = [following]
    following = only_reader(flow, following)
    # Frozen, it must stay such that it can be folded into a convolution. At once: nobody may write
    # or let go of the other bottom between here and there.
    if following == index + 2 and not norm.use_global_stats and _sums_two(steps[following]):
        chain.append(following)
        following = only_reader(flow, following)
    if following is not None and _rectifies(steps[following]):
        chain.append(following)
    return chain


def _joins(step: Step, channels: int) -> bool:
    layer = step.layer
    return (
        isinstance(layer, Scale)
        and plain(step)
        and len(step.bottoms) == 1
        and layer.axis == 1
        and tuple(layer.weight.shape) == (channels,)
    )


def _sums_two(step: Step) -> bool:
    layer = step.layer
    return (
        isinstance(layer, Eltwise)
        and plain(step)
        and layer.operation == SUM
        and not layer.quirk
        and len(step.bottoms) == 2
        and all(factor == 1 for factor in layer.coeff)
    )


def _rectifies(step: Step) -> bool:
    return isinstance(step.layer, ReLU) and not step.layer.negative_slope and plain(step)


def _fused(parts: Sequence[Step]) -> Step:
    """One step in the place of ``parts``; blobs between them never come to be."""
    first, last = parts[0], parts[-1]
    norm, scale = first.layer, parts[1].layer
    assert isinstance(norm, BatchNorm)
    assert isinstance(scale, Scale)
    bottoms = list(zip(first.bottoms, first.bottom_shapes, strict=True))
    for before, part in itertools.pairwise(parts):
        read = zip(part.bottoms, part.bottom_shapes, strict=True)
        bottoms += [(name, shape) for name, shape in read if name not in before.tops]
    names = tuple(name for name, _ in bottoms)
    between = {top for part in parts[:-1] for top in part.tops} - {*names, *last.tops}
    early = {name for part in parts[:-1] for name in part.dead} - {*between, *last.tops}
    dead = dict.fromkeys([*sorted(early), *(name for name in last.dead if name not in between)])
    return running(
        first,
        Normalisation(norm, scale, relu=isinstance(last.layer, ReLU)),
        bottoms=names,
        bottom_shapes=tuple(shape for _, shape in bottoms),
        tops=last.tops,
        top_shapes=last.top_shapes,
        in_place=frozenset(),
        needs_backward=any(part.needs_backward for part in parts),
        dead=tuple(dead),
    )
