"""For inference: a BatchNorm with its Scale inside the convolution before it, ReLU in place."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.convolution import Convolution
from ..layout import channels_last
from ..steps import Step
from .batch_norm import Normalisation
from .prune import freed
from .readers import only_reader, plain, running, trace


class Folded:
    """A convolution whose filters and bias hold the normalisation that followed it.

    They are those of the moment of folding: later changes of the weights are not seen.
    """

    @torch.no_grad()
    def __init__(self, convolution: Convolution, after: Normalisation) -> None:
        mean, variance = after.norm.statistics()
        factor = after.scale.weight * torch.rsqrt(variance + after.norm.eps)
        bias = -mean if not convolution.bias_term else convolution.bias - mean
        bias = bias * factor
        if after.scale.bias_term:
            bias = bias + after.scale.bias
        weight = convolution.weight
        arranged = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
        weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
        self.convolution = copy.copy(convolution)
        self.convolution._parameters = {}
        self.convolution._buffers = {
            "weight": channels_last(weight) if arranged else weight,
            "bias": bias,
        }
        self.convolution.bias_term = True
        self.relu = after.relu

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        (y,) = self.convolution(x)
        return (F.relu_(y) if self.relu else y,)


def fold_batch_norm(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """``steps``, fused before, with every BatchNorm that follows only a convolution folded in."""
    flow = trace(steps, outputs)
    result = list(steps)
    gone: set[int] = set()
    for index, step in enumerate(steps):
        layer = step.layer
        if not isinstance(layer, Convolution) or not plain(step):
            continue
        following = only_reader(flow, index)
        if following is None:
            continue
        after = steps[following]
        normalisation: object = after.layer
        if not isinstance(normalisation, Normalisation):
            continue
        if normalisation.norm.use_global_stats and layer.windows.axis == 1:
            gone.add(following)
            result[index] = running(
                step, Folded(layer, normalisation), tops=after.tops, top_shapes=after.top_shapes
            )
    return freed([step for index, step in enumerate(result) if index not in gone], outputs)
