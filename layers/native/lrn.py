"""LRN across the channels of channels-last blobs (``kernels/lrn.c``), float32 or bfloat16.

Only the bottom is kept for backward: the scale is summed again there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import library
from .library import Function

#: Channels from which on a pixel fills a vector, on every processor, and the most that the memory
#: for one pixel can take, with what lies around them.
_LANES, _MOST = 16, 4000
#: Numbers in the bottom from which on threads share the work.
_SHARED = 1 << 14


@dataclass(frozen=True, slots=True)
class Plan:
    """A normalisation of bottoms of one shape: what the kernels take."""

    reach: int
    quarters: int
    factor: float
    offset: float
    geometry: Any
    forward: Function
    backward: Function

    def by_torch(self, x: Tensor) -> Tensor:
        """The top, by an operation that can be differentiated twice."""
        size = 2 * self.reach + 1
        return F.local_response_norm(x, size, self.factor * size, self.quarters / 4, self.offset)

    @property
    def slope(self) -> float:
        """What the sum over channels has in the gradient."""
        return -0.5 * self.quarters * self.factor


def plan(x: Tensor, local_size: int, alpha: float, beta: float, k: float) -> Plan | None:
    """How to normalise ``x`` (N, C, H, W); None where torch must do it."""
    if not library.suits(x, dtypes=library.NUMBERS):
        return None
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    threads = torch.get_num_threads()
    return _planned(tuple(x.shape), x.dtype, local_size, alpha, beta, k, threads)


@lru_cache(maxsize=1024)
def _planned(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    local_size: int,
    alpha: float,
    beta: float,
    k: float,
    threads: int,
) -> Plan | None:
    channels, pixels = shape[1], prod(shape) // shape[1] if shape[1] else 0
    reach = min(local_size // 2, channels)
    # Other powers than these are no products of roots.
    if beta not in (0.5, 0.75, 1) or pixels < 1 or not _LANES <= channels <= _MOST - 2 * reach:
        return None
    forward = library.function("lrn", "lrn_forward", "ppiffn", dtype)
    backward = library.function("lrn", "lrn_backward", "pppifffn", dtype)
    if forward is None or backward is None:
        return None
    team = threads if prod(shape) >= _SHARED else 1
    geometry = library.numbers(pixels, channels, reach, team)
    return Plan(reach, round(4 * beta), alpha / local_size, k, geometry, forward, backward)


def normalise(plan: Plan, x: Tensor) -> Tensor:
    """The top of a planned normalisation, channels-last."""
    return _AcrossChannels.apply(x, plan)


class _AcrossChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        y = torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last)
        plan.forward(x, y, plan.quarters, plan.factor, plan.offset, plan.geometry)
        ctx.save_for_backward(x)
        ctx.plan = plan
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,), plan = ctx.saved_tensors, ctx.plan
        if torch.is_grad_enabled():  # this is to be differentiated again
            return torch.autograd.grad(plan.by_torch(x), x, grads[0], create_graph=True)[0], None
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        result = torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last)
        plan.backward(
            x,
            grad,
            result,
            plan.quarters,
            plan.factor,
            plan.offset,
            plan.slope,
            plan.geometry,
        )
        return result, None
