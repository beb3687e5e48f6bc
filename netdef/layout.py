"""Memory layout: channels-last, where convolutions run fastest, without a change of any shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .steps import Step

BEST, CHANNELS_LAST, CONTIGUOUS = "BEST", "CHANNELS_LAST", "CONTIGUOUS"
_FILTERS = {"Convolution", "Deconvolution"}


def channels_last(x: Tensor) -> Tensor:
    """``x`` with its channels innermost in memory, if it has 4 axes; otherwise as it is.

    With a single channel both layouts are the same memory; strides that say "channels-last" make
    the convolution's top channels-last too, at no cost.
    """
    if x.dim() != 4:
        return x
    if x.shape[1] == 1 and x.is_contiguous():
        _, _, height, width = x.shape
        return x.as_strided(x.shape, (height * width, 1, width, 1))
    return x.contiguous(memory_format=torch.channels_last)


def chosen(setting: str, steps: Sequence[Step], device: torch.device, reduced: bool) -> bool:
    """Whether to run channels-last: as ``setting`` says, or for BEST wherever it pays.

    That is in nets with convolutions over 2 spatial axes, on the CPU, and on a GPU where tensor
    cores are used (``reduced`` precision); cuDNN's float32 kernels prefer the other layout.
    """
    if setting != BEST:
        return setting == CHANNELS_LAST
    filters = any(
        step.type in _FILTERS and step.layer.blob(0).dim() == 4 and not step.views for step in steps
    )
    return filters and (device.type == "cpu" or reduced)


def arrange_weights(steps: Sequence[Step], shared_views: set[int]) -> None:
    """Put the filters of 4 axes into channels-last memory, once.

    ``shared_views`` holds the ids of layers whose blobs others see in another shape; those stay.
    """
    for step in steps:
        if step.type in _FILTERS and id(step.layer) not in shared_views:
            weight = step.layer.blob(0)
            if weight.dim() == 4 and not weight.is_meta:
                weight.data = channels_last(weight.data)
