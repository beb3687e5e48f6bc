"""Powers, exponentials and logarithms of each element: Power, Exp, Log."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import quirks
from .activations import Elementwise
from .base import Context
from .registry import register


@register("Power")
class Power(Elementwise):
    """y = (shift + scale * x) ^ power; by default power 1, scale 1, shift 0.

    With power or scale 0 the top is constant and the gradient 0, also where a factor of it would
    be infinite. In place, ``caffe_quirks`` of the net gives Caffe's gradient.

    Torch: ``torch.pow`` of a linear function.
    """

    message_field = "power_param"

    def __init__(
        self, power: float = 1.0, scale: float = 1.0, shift: float = 0.0, *, quirk: bool = False
    ) -> None:
        super().__init__()
        self.quirk = quirk
        self.power = power
        self.scale = scale
        self.shift = shift

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Power:
        param = message.power_param
        quirk = quirks.asked_for(context)
        return cls(param.power, param.scale, param.shift, quirk=quirk)

    def forward(self, x: Tensor) -> Tensor:
        if not self.quirk:
            return self.raised(x)
        y: Tensor = quirks.PowerInPlace.apply(
            x, self.raised(x.detach()), self.power, self.scale, self.shift
        )
        return y

    def raised(self, x: Tensor) -> Tensor:
        """(shift + scale * x) ^ power."""
        if self.power == 0 or self.scale == 0:
            value = 1.0 if self.power == 0 else self.shift**self.power
            # Zero in value and gradient, yet connected, so that a backward pass is possible.
            return x.clamp(0, 0) * 0 + value
        y = x if self.scale == 1 else x * self.scale
        if self.shift:
            y = y + self.shift
        return y if self.power == 1 else y**self.power


@register("Exp")
class Exp(Elementwise):
    """y = base ^ (shift + scale * x); ``base`` -1, the default, means e. Scale 1, shift 0.

    Torch: ``torch.exp`` of a linear function, to any base.
    """

    message_field = "exp_param"

    def __init__(self, base: float = -1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        log_base = _natural_log(base, "exp_param.base")
        self.inner = scale * log_base
        self.outer = _exponential(shift * log_base)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Exp:
        param = message.exp_param
        return cls(param.base, param.scale, param.shift)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.exp(x if self.inner == 1 else x * self.inner)
        return y if self.outer == 1 else y * self.outer


@register("Log")
class Log(Elementwise):
    """y = log(shift + scale * x) to ``base``; -1, the default, means e. Scale 1, shift 0.

    In place, ``caffe_quirks`` of the net gives Caffe's gradient.

    Torch: ``torch.log`` of a linear function, to any base.
    """

    message_field = "log_param"

    def __init__(
        self, base: float = -1.0, scale: float = 1.0, shift: float = 0.0, *, quirk: bool = False
    ) -> None:
        super().__init__()
        self.quirk = quirk
        log_base = _natural_log(base, "log_param.base")
        if log_base == 0:
            raise LayerError("base must not be 1, whose logarithms do not exist", "log_param.base")
        self.outer = 1.0 / log_base
        self.scale = scale
        self.shift = shift

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Log:
        param = message.log_param
        quirk = quirks.asked_for(context)
        return cls(param.base, param.scale, param.shift, quirk=quirk)

    def forward(self, x: Tensor) -> Tensor:
        if not self.quirk:
            return self.logarithm(x)
        y: Tensor = quirks.SlopeOfTop.apply(x, self.logarithm, self._square_of_slope)
        return y

    def _square_of_slope(self, y: Tensor, grad: Tensor) -> Tensor:
        return (self.outer * self.scale / (self.scale * y + self.shift)) ** 2

    def logarithm(self, x: Tensor) -> Tensor:
        """log(shift + scale * x) to the base."""
        y = x if self.scale == 1 else x * self.scale
        if self.shift:
            y = y + self.shift
        y = torch.log(y)
        return y if self.outer == 1 else y * self.outer


def _natural_log(base: float, field: str) -> float:
    if base == -1:
        return 1.0
    if base <= 0:
        raise LayerError(f"base must be greater than 0 (or -1 for e), got {base:g}", field)
    return math.log(base)


def _exponential(exponent: float) -> float:
    """exp of a double; too large becomes infinity, as in float arithmetic."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
