"""BatchNorm with weight and bias, a sum and a ReLU after it (``kernels/batch_norm.c``).

By the statistics of the batch, for channels that lie innermost in memory. The bottom is read once
for its statistics, which are as exact as two passes would make them, and once for the top; backward
reads the bottom and the top's gradient twice. Where the ReLU was open is found again from the
bottom, unless there is a sum before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import library

#: Blobs of fewer values are left to torch: calling it takes less time.
_FEWEST_VALUES = 1 << 14

_INNERMOST = {2: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a blob (pixels x channels) is normalised."""

    pixels: int
    channels: int
    threads: int
    layout: torch.memory_format
    forward: library.Function
    backward: library.Function


def plan(x: Tensor, *others: Tensor | None) -> Plan | None:
    """How to normalise ``x`` (N, C, ...) with ``others``, each for channels (float32) or of the
    shape and type of x; None where torch has to."""
    layout = _INNERMOST.get(x.dim())
    if layout is None or x.numel() < _FEWEST_VALUES or not x.is_contiguous(memory_format=layout):
        return None
    given = [other for other in others if other is not None]
    if not library.suits(x, *given, dtypes=library.NUMBERS):
        return None
    for other in given:
        if other.dim() > 1:
            if other.dtype != x.dtype or other.shape != x.shape:
                return None
            if not other.is_contiguous(memory_format=layout):
                return None
        elif other.dtype != torch.float32 or not other.is_contiguous():
            return None
    pixels, channels = x.numel() // x.shape[1], x.shape[1]
    return _planned(pixels, channels, x.dtype, torch.get_num_threads(), layout)


@cache
def _planned(
    pixels: int, channels: int, dtype: torch.dtype, threads: int, layout: torch.memory_format
) -> Plan | None:
    forward = library.function("batch_norm", "batch_norm_forward", "pppppppiifii", dtype)
    backward = library.function("batch_norm", "batch_norm_backward", "ppppppppiiii", dtype)
    if forward is None or backward is None or pixels < 2:
        return None
    return Plan(pixels, channels, threads, layout, forward, backward)


def normalize(
    plan: Plan,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    addend: Tensor | None,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` normalised, times ``weight`` plus ``bias`` (C) plus ``addend`` where given, with
    ``relu`` at least 0; the mean (C) and the variance (C) times m / (m - 1) for m pixels."""
    y: Tensor
    found: Tensor
    y, found = _Normalization.apply(x, weight, bias, addend, plan, eps, relu)
    return y, found[0], found[1]


class _Normalization(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        addend: Tensor | None,
        plan: Plan,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor]:
        y, found, sums = torch.empty_like(x), torch.empty(5, plan.channels), _sums(plan)
        plan.forward(
            x,
            weight,
            bias,
            addend,
            y,
            found,
            sums,
            plan.pixels,
            plan.channels,
            eps,
            relu,
            plan.threads,
        )
        ctx.mark_non_differentiable(found)
        ctx.set_materialize_grads(False)
        # Without an addend, where the ReLU was open is made again from the bottom.
        ctx.save_for_backward(x, y if relu and addend is not None else None, found, weight, bias)
        ctx.plan, ctx.relu, ctx.eps = plan, relu, eps
        return y, found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return (None,) * 7
        plan: Plan = ctx.plan
        if torch.is_grad_enabled():  # this is to be differentiated again
            return *_by_torch(ctx, grads[0]), None, None, None
        x, y, found, _, _ = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=plan.layout)
        wants = ctx.needs_input_grad
        x_gradient = torch.empty_like(x) if wants[0] else None
        masked = None if y is None else torch.empty_like(y)
        gradients, sums = torch.empty(4, plan.channels), _sums(plan)
        plan.backward(
            x,
            grad,
            y,
            found,
            x_gradient,
            masked,
            gradients,
            sums,
            plan.pixels,
            plan.channels,
            ctx.relu,
            plan.threads,
        )
        return (
            x_gradient,
            gradients[0] if wants[1] else None,
            gradients[1] if wants[2] else None,
            (grad if masked is None else masked) if wants[3] else None,
            None,
            None,
            None,
        )


def _by_torch(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of bottom, weight, bias and addend by operations that have gradients."""
    x, y, _, weight, bias = ctx.saved_tensors
    top = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps)
    if ctx.relu:
        grad = grad * ((top if y is None else y) > 0)
    wants = ctx.needs_input_grad
    wanted = [each for each, want in zip((x, weight, bias), wants, strict=False) if want]
    found = iter(torch.autograd.grad(top, wanted, grad, create_graph=True))
    return *(next(found) if want else None for want in wants[:3]), grad if wants[3] else None


def _sums(plan: Plan) -> Tensor:
    """Memory for the sums of all threads."""
    return torch.empty(plan.threads, 2, plan.channels, dtype=torch.float64)
