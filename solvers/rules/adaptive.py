"""AdaGrad, RMSProp and AdaDelta: a rate for each weight from the squares of its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..requirements import at_least, fraction, zero
from .base import Step, Tensors, register

_DELTA = at_least("delta", 0, optional=True)


def _descend(parameters: Tensors, gradients: Tensors, squares: Tensors, step: Step) -> None:
    """w = w - rate * g / (sqrt(h) + delta)."""
    divisors = torch._foreach_sqrt(squares)
    torch._foreach_add_(divisors, step.solver.delta)
    torch._foreach_addcdiv_(parameters, gradients, divisors, value=-step.rate)


@register("AdaGrad", slots=1, requirements=(zero("momentum"), _DELTA), prepares_gradient=True)
def adagrad(
    parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step
) -> None:
    """h = h + g^2; w = w - rate * g / (sqrt(h) + delta) (Duchi, Hazan and Singer, 2011)."""
    (squares,) = history
    if parameters[0].device.type == "cpu":
        torch._fused_adagrad_(
            parameters,
            gradients,
            squares,
            [torch.ones(())] * len(parameters),
            lr=step.rate,
            lr_decay=0.0,
            weight_decay=step.decay,
            eps=step.solver.delta,
            maximize=False,
            grad_scale=None if step.scale is None else step.scale.reciprocal(),
        )
        return
    if step.scale is not None:
        torch._foreach_mul_(gradients, step.scale)
    if step.decay:
        torch._foreach_add_(gradients, parameters, alpha=step.decay)
    torch._foreach_addcmul_(squares, gradients, gradients)
    _descend(parameters, gradients, squares, step)


@register(
    "RMSProp",
    slots=1,
    requirements=(zero("momentum", "RMSPropMomentum has one"), fraction("rms_decay"), _DELTA),
)
def rmsprop(
    parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step
) -> None:
    """h = rms_decay * h + (1 - rms_decay) * g^2; w = w - rate * g / (sqrt(h) + delta)."""
    (squares,) = history
    decay = step.solver.rms_decay
    torch._foreach_mul_(squares, decay)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - decay)
    _descend(parameters, gradients, squares, step)


@register(
    "RMSPropMomentum",
    slots=2,
    requirements=(fraction("momentum", optional=False), fraction("rms_decay"), _DELTA),
)
def rmsprop_momentum(
    parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step
) -> None:
    """h1 = rms_decay * h1 + (1 - rms_decay) * g^2; h2 = momentum * h2 + g / (sqrt(h1) + delta);
    w = w - rate * h2; with delta_inside_root the divisor is sqrt(h1 + delta).

    What Hinton's lecture and torch call RMSProp with momentum. TensorFlow, with which the nets that
    need a large delta were trained, has it inside the root.
    """
    squares, moments = history
    decay, delta = step.solver.rms_decay, step.solver.delta
    torch._foreach_mul_(squares, decay)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - decay)
    if step.solver.delta_inside_root:
        divisors = torch._foreach_add(squares, delta)
        torch._foreach_sqrt_(divisors)
    else:
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, delta)
    torch._foreach_mul_(moments, step.solver.momentum)
    torch._foreach_addcdiv_(moments, gradients, divisors)
    torch._foreach_add_(parameters, moments, alpha=-step.rate)


@register("AdaDelta", slots=2, requirements=(fraction("momentum"), _DELTA))
def adadelta(
    parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step
) -> None:
    """h1 = m * h1 + (1 - m) * g^2; u = g * sqrt((h2 + delta) / (h1 + delta));
    h2 = m * h2 + (1 - m) * u^2; w = w - rate * u, with m the momentum (Zeiler, 2012)."""
    squares, updates = history
    momentum, delta = step.solver.momentum, step.solver.delta
    torch._foreach_mul_(squares, momentum)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - momentum)
    change = torch._foreach_add(updates, delta)
    torch._foreach_div_(change, torch._foreach_add(squares, delta))
    torch._foreach_sqrt_(change)
    torch._foreach_mul_(change, gradients)
    torch._foreach_mul_(updates, momentum)
    torch._foreach_addcmul_(updates, change, change, value=1 - momentum)
    torch._foreach_add_(parameters, change, alpha=-step.rate)
