"""Three layers of one's own: an activation, a loss, and a layer with weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cortado import Context, Filler, Layer, register


@register("Mish2")
class Mish2(Layer):
    """y = x * tanh(softplus(beta * x))."""

    allows_in_place = True
    keeps_shape = True

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(F.softplus(self.beta * x))


@register("LogCoshLoss")
class LogCoshLoss(Layer):
    """The mean of log cosh(a - b), a loss that outliers do not rule."""

    default_loss_weight = 1.0

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        d = (a - b).abs()
        return (d + F.softplus(-2 * d) - 0.6931472).mean()


@register("Mixture")
class Mixture(Layer):
    """num_output linear maps of the bottom, each gated by another: (W x) * sigmoid(V x)."""

    value: Tensor
    gate: Tensor

    def __init__(
        self, context: Context, num_output: int, weight_filler: Filler | None = None
    ) -> None:
        super().__init__()
        inputs = context.shapes[0][1]
        self.add_blob("value", (num_output, inputs), weight_filler)
        self.add_blob("gate", (num_output, inputs), weight_filler)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.value) * torch.sigmoid(F.linear(x, self.gate))
