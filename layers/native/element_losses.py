"""Losses summed over pairs of elements (``kernels/element_losses.c``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import library

_FORWARD, _BACKWARD = "ppppfifi", "pppfppifi"
#: Elements of a part, as in the kernel.
_PART = 4096


def loss(name: str, a: Tensor, b: Tensor, factor: float, option: float = 0.0) -> Tensor | None:
    """``factor`` times the sum of the loss ``name`` (sigmoid, smooth_l1) of each pair; None where
    torch must compute it. Only smooth_l1 has a gradient for ``b``."""
    if not library.suits(a, b) or not a.is_contiguous() or not b.is_contiguous():
        return None
    if library.function("element_losses", f"element_losses_{name}", _FORWARD) is None:
        return None
    found: Tensor = _Loss.apply(a, b, name, factor, option)
    return found


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, name: str, factor: float, option: float) -> Tensor:
        count, result = a.numel(), torch.empty(())
        sums = torch.empty(-(-count // _PART), dtype=torch.float64)
        found: Any = library.function("element_losses", f"element_losses_{name}", _FORWARD)
        found(a, b, sums, result, factor, count, option, torch.get_num_threads())
        ctx.save_for_backward(a, b)
        ctx.given = name, factor, option
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        name, factor, option = ctx.given
        if torch.is_grad_enabled():  # this is to be differentiated again
            slope = a.sigmoid() - b if name == "sigmoid" else ((a - b) / option).clamp(-1, 1)
            slope = slope * (factor * grads[0])
            return slope, -slope if ctx.needs_input_grad[1] else None, None, None, None
        for_a = torch.empty_like(a)
        for_b = torch.empty_like(b) if ctx.needs_input_grad[1] else None
        found: Any = library.function(
            "element_losses", f"element_losses_{name}_gradient", _BACKWARD
        )
        threads = torch.get_num_threads()
        found(a, b, grads[0], factor, for_a, for_b, a.numel(), option, threads)
        return for_a, for_b, None, None, None
