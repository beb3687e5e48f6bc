"""Adam and its relatives: first and second moments of the gradient with bias correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..requirements import at_least, fraction
from .base import Step, Tensors, register

MOMENTS = (
    fraction("momentum"),
    fraction("momentum2"),
    at_least("delta", 0, optional=True),
)


def corrections(step: Step) -> tuple[float, float]:
    """1 - momentum^t and 1 - momentum2^t for update t."""
    return 1 - step.solver.momentum**step.count, 1 - step.solver.momentum2**step.count


def accumulate(gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """m = momentum * m + (1 - momentum) * g; v = momentum2 * v + (1 - momentum2) * g^2."""
    moments, squares = history
    torch._foreach_lerp_(moments, gradients, 1 - step.solver.momentum)
    torch._foreach_mul_(squares, step.solver.momentum2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - step.solver.momentum2)


def _fused(
    kernel: Callable[..., None],
    parameters: Tensors,
    gradients: Tensors,
    history: Sequence[Tensors],
    step: Step,
    delta: float,
) -> None:
    """Call torch's fused ``kernel``: w -= rate / c1 * m / (sqrt(v / c2) + delta)."""
    moments, squares = history
    count = torch.full((), float(step.count), device=parameters[0].device)
    kernel(
        parameters,
        gradients,
        moments,
        squares,
        [],
        [count] * len(parameters),
        lr=step.rate,
        beta1=step.solver.momentum,
        beta2=step.solver.momentum2,
        weight_decay=step.decay,
        eps=delta,
        amsgrad=False,
        maximize=False,
        grad_scale=None if step.scale is None else step.scale.reciprocal(),
    )


@register("Adam", slots=2, requirements=MOMENTS, prepares_gradient=True)
def adam(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """w = w - rate * sqrt(c2) / c1 * m / (sqrt(v) + delta), c the bias corrections.

    Caffe adds delta to the uncorrected root (Kingma and Ba, 2015, end of section 2), torch's
    kernel to the corrected one: dividing delta by sqrt(c2) makes them the same.
    """
    delta = step.solver.delta / math.sqrt(corrections(step)[1])
    _fused(torch._fused_adam_, parameters, gradients, history, step, delta)


@register("AdamW", slots=2, requirements=MOMENTS, prepares_gradient=True, decouples_decay=True)
def adamw(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """w = (1 - rate * decay) * w - rate / c1 * m / (sqrt(v / c2) + delta), c the bias corrections
    (Loshchilov and Hutter, 2019)."""
    _fused(torch._fused_adamw_, parameters, gradients, history, step, step.solver.delta)


@register("NAdam", slots=2, requirements=MOMENTS)
def nadam(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """Adam with Nesterov's look-ahead and a constant momentum b (Dozat, 2016):

    w = w - rate * (b * m / (1 - b^(t+1)) + (1 - b) * g / (1 - b^t)) / (sqrt(v / c2) + delta).
    """
    accumulate(gradients, history, step)
    momentum = step.solver.momentum
    first, second = corrections(step)
    divisors = torch._foreach_sqrt(history[1])
    torch._foreach_div_(divisors, math.sqrt(second))
    torch._foreach_add_(divisors, step.solver.delta)
    ahead = -step.rate * momentum / (1 - momentum ** (step.count + 1))
    torch._foreach_addcdiv_(parameters, history[0], divisors, value=ahead)
    now = -step.rate * (1 - momentum) / first
    torch._foreach_addcdiv_(parameters, gradients, divisors, value=now)


@register("RAdam", slots=2, requirements=MOMENTS)
def radam(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """Adam whose first steps, while the variance of its rate is unbounded, are plain momentum
    (Liu et al., 2020)."""
    accumulate(gradients, history, step)
    first, second = corrections(step)
    longest = 2 / (1 - step.solver.momentum2) - 1
    length = longest - 2 * step.count * (1 - second) / second
    if length <= 5:
        torch._foreach_add_(parameters, history[0], alpha=-step.rate / first)
        return
    rectified = math.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    divisors = torch._foreach_sqrt(history[1])
    torch._foreach_add_(divisors, step.solver.delta)
    value = -step.rate * rectified * math.sqrt(second) / first
    torch._foreach_addcdiv_(parameters, history[0], divisors, value=value)
