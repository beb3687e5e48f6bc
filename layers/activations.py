"""Element-wise activations: ReLU, ELU, Sigmoid, TanH, Swish, BNLL, AbsVal, Clip, Threshold.

Each takes one bottom of any shape and gives one top of the same shape, also in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import quirks
from .base import Context, Layer
from .registry import register


class Elementwise(Layer):
    """Base of the layers that work on each element alone, so that a top may replace its bottom."""

    allows_in_place = True
    keeps_shape = True


@register("ReLU")
class ReLU(Elementwise):
    """y = max(x, 0) + negative_slope * min(x, 0), ``negative_slope`` 0 by default.

    The gradient at 0 is the negative slope. ``engine`` changes nothing. Nair and Hinton 2010;
    with a slope, Maas et al. 2013.

    Torch: ``F.relu``, or ``F.leaky_relu`` with a slope; the same.
    """

    message_field = "relu_param"

    def __init__(self, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> ReLU:
        return cls(message.relu_param.negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)


@register("ELU")
class ELU(Elementwise):
    """y = x where x > 0, else alpha * (exp(x) - 1); ``alpha`` 1 by default. Clevert et al. 2015.

    Torch: ``F.elu``, the same.
    """

    message_field = "elu_param"

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> ELU:
        return cls(message.elu_param.alpha)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)


@register("Sigmoid")
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x)). ``engine`` changes nothing.

    Torch: ``torch.sigmoid``, the same.
    """

    message_field = "sigmoid_param"

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@register("TanH")
class TanH(Elementwise):
    """y = tanh(x). ``engine`` changes nothing.

    Torch: ``torch.tanh``, the same.
    """

    message_field = "tanh_param"

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@register("Swish")
class Swish(Elementwise):
    """y = x * sigmoid(beta * x); ``beta`` 1 by default. Ramachandran et al. 2017.

    Torch: ``F.silu`` with a beta.
    """

    message_field = "swish_param"

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Swish:
        return cls(message.swish_param.beta)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.beta == 1 else x * torch.sigmoid(self.beta * x)


@register("BNLL")
class BNLL(Elementwise):
    """Binomial normal log likelihood, y = log(1 + exp(x)), without overflow for large x.

    In place, ``caffe_quirks`` of the net gives Caffe's gradient, that at y.

    Torch: ``F.softplus`` with beta 1 and threshold 40.
    """

    def __init__(self, *, quirk: bool = False) -> None:
        super().__init__()
        self.quirk = quirk

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> BNLL:
        return cls(quirk=quirks.asked_for(context))

    def forward(self, x: Tensor) -> Tensor:
        if not self.quirk:
            return self.rectified(x)
        y: Tensor = quirks.SlopeOfTop.apply(
            x, self.rectified, lambda top, grad: grad * torch.sigmoid(top)
        )
        return y

    @staticmethod
    def rectified(x: Tensor) -> Tensor:
        """log(1 + exp(x))."""
        # The threshold is where exp(-x) no longer counts in float64 next to x.
        return F.softplus(x, threshold=40.0)


@register("AbsVal")
class AbsVal(Elementwise):
    """y = |x|; the gradient at 0 is 0.

    Torch: ``torch.abs``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@register("Clip")
class Clip(Elementwise):
    """y = x held between ``min`` and ``max``; the gradient passes at both bounds.

    In place, ``caffe_quirks`` of the net gives Caffe's gradient, which passes everywhere.

    Torch: ``torch.clamp``, the same but for its gradient at the bounds.
    """

    message_field = "clip_param"

    def __init__(self, low: float, high: float, *, quirk: bool = False) -> None:
        super().__init__()
        self.quirk = quirk
        self.low = low
        self.high = high

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Clip:
        param = message.clip_param
        for name in ("min", "max"):
            if not param.HasField(name):
                raise LayerError(f"{name} must be given", f"clip_param.{name}")
        if param.min > param.max:
            raise LayerError(
                f"min must be at most max, got {param.min:g} and {param.max:g}", "clip_param.min"
            )
        return cls(param.min, param.max, quirk=quirks.asked_for(context))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.quirk:
            y = quirks.SlopeOfTop.apply(
                x, lambda bottom: bottom.clamp(self.low, self.high), lambda top, grad: grad
            )
            return y
        y = _Clip.apply(x, self.low, self.high)
        return y


class _Clip(torch.autograd.Function):
    """The gradient passes wherever clipping changes nothing, so at the bounds too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        y = x.clamp(low, high)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        return torch.where(x == y, grads[0], 0), None, None


@register("Threshold")
class Threshold(Elementwise):
    """y = 1 where x > threshold, else 0; ``threshold`` 0 by default. It has no gradient.

    Torch: ``F.threshold`` keeps what is larger; here it becomes 1.
    """

    message_field = "threshold_param"
    differentiable = False

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Threshold:
        return cls(message.threshold_param.threshold)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)
