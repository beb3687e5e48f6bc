"""ReLU in the memory of its bottom, where neither autograd nor anybody else needs that."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch.nn.functional as F
from torch import Tensor

from ...layers.activations import ReLU
from ...layers.base import Layer
from ...layers.eltwise import SUM, Eltwise
from ...layers.pooling import STOCHASTIC, Pooling
from ..steps import Step
from .batch_norm import Normalisation
from .readers import Version, plain, running, trace

#: Layers whose top is memory of its own that their backward does not read.
_FRESH = {
    "Convolution",
    "Deconvolution",
    "InnerProduct",
    "BatchNorm",
    "Scale",
    "Concat",
    "LRN",
}


class Rectifier:
    """A ReLU that overwrites its bottom."""

    def __init__(self, negative_slope: float) -> None:
        self.negative_slope = negative_slope

    def __call__(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(x, self.negative_slope) if self.negative_slope else F.relu_(x)


def reuse_memory(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """``steps`` with every ReLU in place that can be."""
    flow = trace(steps, outputs)
    result = list(steps)
    for index, step in enumerate(steps):
        layer = step.layer
        # The gradient of a leaky ReLU in place is right only for slopes above 0.
        if not isinstance(layer, ReLU) or layer.negative_slope < 0 or not plain(step):
            continue
        if _overwritable(flow.bottoms[index][0], steps):
            result[index] = running(step, Rectifier(layer.negative_slope))
    return result


def _overwritable(blob: Version, steps: Sequence[Step]) -> bool:
    return (
        blob.writer is not None
        and not blob.final
        and len(blob.readers) == 1
        and not steps[blob.writer].losses
        and _makes_fresh_memory(steps[blob.writer])
    )


def _makes_fresh_memory(step: Step) -> bool:
    layer = step.layer
    if not isinstance(layer, Layer | Normalisation):
        return False
    if isinstance(layer, Normalisation):
        return not layer.relu
    if isinstance(layer, Pooling):
        return layer.pool != STOCHASTIC and len(step.tops) == 1
    if isinstance(layer, Eltwise):
        return layer.operation == SUM and len(step.bottoms) > 1
    if step.type == "Concat":
        return len(step.bottoms) > 1
    return step.type in _FRESH
