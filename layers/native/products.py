"""Matrix products of float32 by the processor's tiles of bfloat16, three for each float
(``kernels/products.h``): as accurate as float32's own, and two to three times as fast."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import library

#: Rows and columns at which packing the other side takes as long as is gained, as measured; and
#: the depth that fills chunks.
_ROWS, _COLUMNS, _DEPTH = 90, 80, 48


def mm(a: Tensor, b: Tensor) -> Tensor:
    """``a`` (rows, depth) times ``b`` (depth, columns), in torch's way where that is faster."""
    (rows, depth), columns = a.shape, b.shape[1]
    if depth < _DEPTH or _ROWS * columns + _COLUMNS * rows > 0.8 * rows * columns:
        return torch.mm(a, b)
    if not library.has_tiles() or not library.suits(a, b) or not (_lies_well(a) and _lies_well(b)):
        return torch.mm(a, b)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return torch.mm(a, b)  # which can be differentiated
    found = library.function("products", "products_multiply", "ppppni")
    if found is None:
        return torch.mm(a, b)
    c = torch.empty(rows, columns)
    threads = torch.get_num_threads()
    (size,) = library.figures("products", "products_room", 1, rows, depth, columns, threads)
    room = torch.empty(size)
    given = library.numbers(rows, depth, columns, *a.stride(), *b.stride())
    found(a, b, c, room, given, threads)
    return c


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x`` (..., inputs) times ``weight`` (outputs, inputs) turned, plus ``bias``."""
    if not library.suits(x, weight, bias):
        return F.linear(x, weight, bias)
    y: Tensor = _Linear.apply(x, weight, bias)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return mm(x.flatten(0, -2), weight.t()).add_(bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        wants = ctx.needs_input_grad
        return (
            mm(grad, weight).view_as(x) if wants[0] else None,
            mm(grad.t(), x.flatten(0, -2)) if wants[1] else None,
            grad.sum(0) if wants[2] else None,
        )


def _lies_well(matrix: Tensor) -> bool:
    """Whether rows or columns are contiguous."""
    return 1 in matrix.stride()
