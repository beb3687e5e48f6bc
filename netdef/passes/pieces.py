"""For inference on a CPU: a layer of many small operations, on a few places of the picture at once.

What is between the operations then stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layers.lrn import LRN
from ..steps import Step
from .readers import plain, running

#: Bytes of the bottom at a time: what comes of it fits into the cache of one core.
PIECE = 1 << 20


class InPieces:
    """A layer that computes each place of a channels-last bottom from its channels alone."""

    def __init__(self, layer: LRN) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        channels = x.shape[1]
        count = max(1, PIECE // (channels * x.element_size()))
        if x.numel() <= count * channels or not x.is_contiguous(memory_format=torch.channels_last):
            y: Tensor = layer(x)
            return y
        top = torch.empty_like(x)
        for piece, result in zip(_places(x, count), _places(top, count), strict=True):
            layer.write(piece, result)
        return top


def _places(x: Tensor, count: int) -> Sequence[Tensor]:
    """``x`` as pieces of one row of ``count`` pixels each, in the same memory."""
    rows = x.permute(0, 2, 3, 1).view(-1, x.shape[1])
    return [part.t()[None, :, None] for part in rows.split(count)]


def divide(steps: Sequence[Step]) -> list[Step]:
    """``steps`` with every LRN across channels in pieces."""
    result = list(steps)
    for index, step in enumerate(steps):
        layer: object = step.layer
        if type(layer) is LRN and not layer.within_channel and plain(step):
            result[index] = running(step, InPieces(layer))
    return result
