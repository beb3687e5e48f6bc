"""Products of few rows with a large matrix of weights (``kernels/few_rows.c``).

They take about the time of reading the weights once; torch takes twice to three times as long from
three rows on, until there are some dozens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import library

#: Rows up to which the kernels are faster, as measured, forward and for the gradient of the rows.
_MOST_ROWS, _MOST_ROWS_BACKWARD = 32, 16
#: Weights from which on a pass takes longer than calling it does.
_FEWEST_WEIGHTS = 1 << 17
#: What inputs must have a multiple of: the lanes of the widest vectors.
_LANES = 16
_FLOAT32 = (torch.float32,)
_FORWARD, _BACKWARD = "pppppn", "ppppn"


def suits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether :func:`linear` takes ``x`` (..., inputs) and ``weight`` (outputs, inputs).

    Under autocast to bfloat16 as well: what it would be told to multiply in fewer bits is read in
    all of them, which takes less time than to make the copy.
    """
    inputs = weight.shape[1]
    if weight.numel() < _FEWEST_WEIGHTS or inputs % _LANES:
        return False
    if not 0 < x.numel() <= _MOST_ROWS * inputs or not weight.is_contiguous():
        return False
    if x.shape[-1:] != weight.shape[1:]:
        return False  # torch says what is wrong
    fewer_bits = torch.is_autocast_enabled("cpu")
    if fewer_bits and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    given = (weight,) if bias is None else (weight, bias)
    return (
        library.suits(x, dtypes=library.NUMBERS if fewer_bits else _FLOAT32)
        and library.suits(*given, dtypes=_FLOAT32)
        and library.function("few_rows", "few_rows_forward", _FORWARD) is not None
    )


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taker: Callable[[Tensor, Tensor], bool] | None = None,
) -> Tensor:
    """``x`` times ``weight`` turned, plus ``bias``, in the type that autocast wants. ``taker`` may
    take the factors of the weights' gradient, that of the top and the bottom, in its place."""
    y: Tensor = _Linear.apply(x, weight, bias, taker)
    return y.to(torch.bfloat16) if torch.is_autocast_enabled("cpu") else y


def product(x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool = False) -> Tensor:
    """``x`` (..., inputs) times ``weight`` turned, plus ``bias``; no less than 0 if
    ``rectified``."""
    outputs, inputs = weight.shape
    y, room = torch.empty(*x.shape[:-1], outputs), torch.empty(x.numel())
    found: Any = library.function("few_rows", "few_rows_forward", _FORWARD)
    call = _call(x.numel() // inputs, inputs, outputs, rectified)
    found(x.contiguous(), weight, bias, y, room, call)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, taker: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.taker = taker
        return product(x.float(), weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        rows = x.reshape(-1, weight.shape[1]).float()
        wants = ctx.needs_input_grad
        # First what needs the weights, which whoever takes their gradient may change.
        for_x = _gradient(grad, weight).view_as(x).to(x.dtype) if wants[0] else None
        for_bias = grad.sum(0) if wants[2] else None
        taken = wants[1] and ctx.taker is not None and ctx.taker(grad, rows)
        return for_x, grad.t() @ rows if wants[1] and not taken else None, for_bias, None


def _gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """``grad`` times ``weight``."""
    (rows, outputs), inputs = grad.shape, weight.shape[1]
    if rows > _MOST_ROWS_BACKWARD or torch.is_grad_enabled():  # torch's can be differentiated again
        return grad @ weight
    result, room = torch.empty(rows, inputs), torch.empty(rows * inputs)
    found: Any = library.function("few_rows", "few_rows_backward", _BACKWARD)
    found(grad.contiguous(), weight, result, room, _call(rows, inputs, outputs, False))
    return result


def _call(rows: int, inputs: int, outputs: int, rectified: bool) -> Any:
    return library.numbers(rows, inputs, outputs, rectified, torch.get_num_threads())
