"""The multinomial logistic loss where the classes lie side by side (``kernels/softmax_loss.c``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import library

#: A label that there is not.
_NONE = -1
_FORWARD, _BACKWARD = "ppppppfnn", "pppppn"


def loss(
    x: Tensor, labels: Tensor, ignore_label: int | None, divisor: float | None
) -> Tensor | None:
    """The loss of scores ``(rows, classes)`` over ``divisor``, None for the number of rows that
    count; None where torch must compute it, or refuse labels that are no class."""
    if not library.suits(x, labels) or not x.is_contiguous() or not labels.is_contiguous():
        return None
    if library.function("softmax_loss", "softmax_loss_forward", _FORWARD) is None:
        return None
    ignores = ignore_label is not None
    given = (*x.shape, ignores, ignore_label or 0, divisor is None, torch.get_num_threads())
    call, bad = library.numbers(*given), library.numbers(0)
    found: Tensor = _Loss.apply(x, labels, ignore_label, divisor or 1.0, call, bad)
    return None if bad[0] else found


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        labels: Tensor,
        ignore_label: int | None,
        divisor: float,
        call: Any,
        bad: Any,
    ) -> Tensor:
        softmax, losses = torch.empty_like(x), torch.empty(x.shape[0])
        total, scale = torch.empty(()), torch.empty(())
        found: Any = library.function("softmax_loss", "softmax_loss_forward", _FORWARD)
        found(x, labels, softmax, losses, total, scale, divisor, call, bad)
        ctx.save_for_backward(x, softmax, labels, scale)
        ctx.call, ctx.ignore_label = call, ignore_label
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, softmax, labels, scale = ctx.saved_tensors
        nothing = (None,) * 5
        if torch.is_grad_enabled():  # this is to be differentiated again
            ignored = _NONE if ctx.ignore_label is None else ctx.ignore_label
            total = F.cross_entropy(x, labels.long(), ignore_index=ignored, reduction="sum")
            (slope,) = torch.autograd.grad(total * scale, x, grads[0], create_graph=True)
            return slope, *nothing
        gradient = torch.empty_like(softmax)
        found: Any = library.function("softmax_loss", "softmax_loss_backward", _BACKWARD)
        found(softmax, labels, scale, grads[0], gradient, ctx.call)
        return gradient, *nothing
