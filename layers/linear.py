"""The product with a weight matrix that several layers share."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from .native import few_rows

#: Takes the gradient of a product's top (rows, outputs) and its bottom (rows, inputs), the factors
#: of the weights' gradient; says whether it has, else they get it as usual.
Taker = Callable[[Tensor, Tensor], bool]


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, taker: Taker | None = None
) -> Tensor:
    """``x`` times ``weight`` transposed, plus ``bias``, over the last axis; ``taker`` may be asked
    to take the gradient of the weights.

    On the meta device the bias is added apart: torch finds the shape of the joint operation through
    its compiler, whose import would cost every command that builds a net two seconds.
    """
    if x.is_meta and bias is not None:
        return F.linear(x, weight) + bias
    if few_rows.suits(x, weight, bias):
        return few_rows.linear(x, weight, bias, taker)
    return F.linear(x, weight, bias)
