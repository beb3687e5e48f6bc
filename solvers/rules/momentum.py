"""SGD and Nesterov's accelerated gradient, with the learning rate inside the history, as in Caffe.

Both run torch's fused SGD kernel, one pass over memory, in a form that keeps Caffe's history h
itself in the momentum buffer: no conversion when a snapshot is written, so resuming is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..requirements import at_least
from .base import Step, Tensors, register

_MOMENTUM = at_least("momentum", 0, optional=True)

# Without momentum the kernel would leave its buffer alone, but Caffe's history then holds the last
# update. This is zero once it is float32, and keeps the kernel on the path that writes the buffer.
_NEXT_TO_ZERO = 1e-300


def _inverse(scale: Tensor | None) -> Tensor | None:
    """What the kernel divides gradients by in order to multiply them by ``scale``."""
    return None if scale is None else scale.reciprocal()


@register(
    "SGD",
    slots=1,
    requirements=(_MOMENTUM,),
    prepares_gradient=True,
    ignores_zero_rate=True,
    coasts=True,
)
def sgd(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """h = momentum * h + rate * g; w = w - h.

    The kernel computes ``h = momentum * h + (1 - dampening) * g`` and ``w -= lr * h``: with lr 1
    and dampening 1 - rate that is Caffe's formula.
    """
    torch._fused_sgd_(
        parameters,
        gradients,
        history[0],
        weight_decay=step.decay,
        momentum=step.solver.momentum or _NEXT_TO_ZERO,
        lr=1.0,
        dampening=1.0 - step.rate,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        grad_scale=_inverse(step.scale),
    )


@register(
    "Nesterov",
    slots=1,
    requirements=(_MOMENTUM,),
    prepares_gradient=True,
    ignores_zero_rate=True,
    coasts=True,
)
def nesterov(
    parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step
) -> None:
    """h' = momentum * h + rate * g; w = w - ((1 + momentum) * h' - momentum * h).

    The step is rate * g + momentum * h', which the kernel computes with lr 1 if the gradient comes
    in already multiplied by the rate: its gradient scale (a divisor) does that, and the decay is
    multiplied to match.
    """
    device = parameters[0].device
    divisor = torch.full((1,), 1 / step.rate if step.rate else torch.inf, device=device)
    if step.scale is not None:
        divisor /= step.scale
    torch._fused_sgd_(
        parameters,
        gradients,
        history[0],
        weight_decay=step.decay * step.rate,
        momentum=step.solver.momentum or _NEXT_TO_ZERO,
        lr=1.0,
        dampening=0.0,
        nesterov=True,
        maximize=False,
        is_first_step=False,
        grad_scale=divisor,
    )
