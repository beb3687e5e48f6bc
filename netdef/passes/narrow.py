"""For inference in 16 bits: convolutions and inner products whose weights are of that type.

Autocast casts weights anew in every pass; for a few images on a GPU that takes as many kernels as
the products themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch

from ...layers.base import Layer
from ...layers.convolution import Convolution
from ...layers.inner_product import InnerProduct
from ..steps import Step
from .fold import Folded
from .readers import running
from .rectify import RectifiedConvolution

L = TypeVar("L", bound=Layer)


@torch.no_grad()
def narrow(steps: Sequence[Step], dtype: torch.dtype) -> list[Step]:
    """``steps`` with copies of such weights in ``dtype``, to be run under autocast of that type.

    They are those of the moment: later changes of the weights are not seen.
    """
    return [_narrowed(step, dtype) for step in steps]


def _narrowed(step: Step, dtype: torch.dtype) -> Step:
    layer: object = step.layer
    if step.views:  # its blobs are another layer's, seen in another shape in each pass
        return step
    if type(layer) is Convolution or type(layer) is InnerProduct:
        return running(step, _cast(layer, dtype))
    if isinstance(layer, Folded | RectifiedConvolution):
        outer = copy.copy(layer)
        outer.convolution = _cast(layer.convolution, dtype)
        return running(step, outer)
    return step


def _cast(layer: L, dtype: torch.dtype) -> L:
    made = copy.copy(layer)
    own = {**layer._parameters, **layer._buffers}
    made._parameters = {}
    made._buffers = {name: blob.to(dtype) for name, blob in own.items() if blob is not None}
    return made
