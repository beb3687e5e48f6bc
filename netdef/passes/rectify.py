"""A Convolution and the ReLU after it as one operation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from ...layers.activations import ReLU
from ...layers.convolution import Convolution
from ..steps import Step
from .prune import freed
from .readers import only_reader, plain, running, trace


class RectifiedConvolution:
    """A Convolution of one bottom whose result a ReLU replaces, as autograd does not need it."""

    relu = True

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution

    def __call__(self, x: Tensor) -> Tensor:
        return self.convolution.rectified(x)


def fuse_rectifiers(steps: Sequence[Step], outputs: Collection[str]) -> list[Step]:
    """``steps`` with each Convolution and the ReLU that alone reads its top as one."""
    flow = trace(steps, outputs)
    result = list(steps)
    gone: set[int] = set()
    for index, step in enumerate(steps):
        layer: object = step.layer
        following = only_reader(flow, index)
        if type(layer) is not Convolution or not plain(step) or following is None:
            continue
        after = steps[following]
        if type(after.layer) is ReLU and not after.layer.negative_slope and plain(after):
            gone.add(following)
            result[index] = running(
                step,
                RectifiedConvolution(layer),
                tops=after.tops,
                needs_backward=step.needs_backward or after.needs_backward,
            )
    return freed([step for index, step in enumerate(result) if index not in gone], outputs)
