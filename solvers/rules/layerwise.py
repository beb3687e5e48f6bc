"""LARS and LAMB: large-batch rules whose rate follows the size of each layer's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..requirements import at_least, positive
from .adam import MOMENTS, accumulate, corrections
from .base import Step, Tensors, register


def _ratios(over: Tensors, under: Tensors) -> Tensors:
    """over / under, elementwise in each pair, 1 where either is 0; on the device, no waiting."""
    top, bottom = torch.stack(over), torch.stack(under)
    usable = (top > 0) & (bottom > 0)
    return list(torch.where(usable, top / torch.where(usable, bottom, 1), 1.0).unbind())


def _weights_only(parameters: Tensors, ratios: Tensors) -> Tensors:
    """``ratios``, but 1 for biases and other parameters of one axis, which keep the plain rate."""
    one = torch.ones((), device=parameters[0].device)
    return [r if p.dim() > 1 else one for p, r in zip(parameters, ratios, strict=True)]


def _norms(tensors: Tensors) -> Tensors:
    return list(torch._foreach_norm(tensors))


@register(
    "LARS",
    slots=1,
    requirements=(
        at_least("momentum", 0, optional=True),
        positive("trust_coefficient", optional=True),
    ),
    decouples_decay=True,
    coasts=True,
    elementwise=False,
)
def lars(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """h = momentum * h + rate * ratio * (g + decay * w); w = w - h, with
    ratio = trust_coefficient * |w| / (|g| + decay * |w|) for each parameter of more than one axis,
    and 1 for the others (You, Gitman and Ginsburg, 2017)."""
    (moments,) = history
    weights = _norms(parameters)
    below: list[Tensor] = list(torch._foreach_add(_norms(gradients), weights, alpha=step.decay))
    trust = torch._foreach_mul(weights, step.solver.trust_coefficient)
    ratios = _weights_only(parameters, _ratios(list(trust), below))
    torch._foreach_add_(gradients, parameters, alpha=step.decay)
    torch._foreach_mul_(gradients, ratios)
    torch._foreach_mul_(moments, step.solver.momentum)
    torch._foreach_add_(moments, gradients, alpha=step.rate)
    torch._foreach_sub_(parameters, moments)


@register("LAMB", slots=2, requirements=MOMENTS, decouples_decay=True, elementwise=False)
def lamb(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """u = (m / c1) / (sqrt(v / c2) + delta) + decay * w; w = w - rate * |w| / |u| * u, c the bias
    corrections; the ratio is 1 for parameters of one axis (You et al., 2020)."""
    accumulate(gradients, history, step)
    first, second = corrections(step)
    divisors = torch._foreach_sqrt(history[1])
    torch._foreach_div_(divisors, math.sqrt(second))
    torch._foreach_add_(divisors, step.solver.delta)
    torch._foreach_mul_(divisors, first)
    change = list(torch._foreach_div(history[0], divisors))
    torch._foreach_add_(change, parameters, alpha=step.decay)
    ratios = _weights_only(parameters, _ratios(_norms(parameters), _norms(change)))
    torch._foreach_mul_(change, ratios)
    torch._foreach_add_(parameters, change, alpha=-step.rate)
