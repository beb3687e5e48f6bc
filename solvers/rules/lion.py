"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..requirements import fraction
from .base import Step, Tensors, register


@register(
    "Lion",
    slots=1,
    requirements=(fraction("momentum"), fraction("momentum2")),
    decouples_decay=True,
)
def lion(parameters: Tensors, gradients: Tensors, history: Sequence[Tensors], step: Step) -> None:
    """w = w - rate * (sign(momentum * m + (1 - momentum) * g) + decay * w);
    m = momentum2 * m + (1 - momentum2) * g (Chen et al., 2023; they use 0.9 and 0.99)."""
    (moments,) = history
    change = torch._foreach_lerp(moments, gradients, 1 - step.solver.momentum)
    torch._foreach_sign_(change)
    if step.decay:
        torch._foreach_mul_(parameters, 1 - step.rate * step.decay)
    torch._foreach_add_(parameters, change, alpha=-step.rate)
    torch._foreach_lerp_(moments, gradients, 1 - step.solver.momentum2)
