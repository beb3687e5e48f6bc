"""Inner products whose weights are nobody else's: their gradient is one product of two factors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..layers.inner_product import InnerProduct
from .net import Net

#: A gradient with no number above this is finite, and so is the sum of those of many passes.
_SAFE = 1e30


def surely_finite(grad: Tensor, rows: Tensor) -> bool:
    """Whether the weights' gradient, the product of ``grad`` (rows, outputs) and ``rows`` (rows,
    inputs), which are much smaller, has finite numbers only. False where that is not certain."""
    largest = [float(torch.linalg.vector_norm(each, math.inf)) for each in (grad, rows)]
    return len(rows) * largest[0] * largest[1] < _SAFE


def unshared(net: Net) -> Iterator[tuple[Tensor, InnerProduct]]:
    """The weights of each such layer, and the layer, which can be given a ``taker``."""
    users: dict[int, int] = {}
    for step in net.steps:
        for blob in step.layer.parameters():
            users[id(blob)] = users.get(id(blob), 0) + 1
    for step in net.steps:
        layer: object = step.layer
        if isinstance(layer, InnerProduct) and not layer.transpose and users[id(layer.weight)] == 1:
            yield layer.weight, layer
