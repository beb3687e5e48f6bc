"""Later element-wise activations: GELU, SiLU, Mish, HardSwish, HardSigmoid, ReLU6, SELU, Softplus.

Each takes one bottom of any shape and gives one top of the same shape, also in place.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .activations import Elementwise
from .registry import register

NONE: int = caffe_pb2.GELUParameter.NONE
TANH: int = caffe_pb2.GELUParameter.TANH


@register("GELU")
class GELU(Elementwise):
    """y = x * Phi(x), Phi being the normal distribution. Hendrycks and Gimpel 2016.

    With ``approximate: TANH`` y = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).

    Torch: ``F.gelu``, the same.
    """

    message_field = "gelu_param"

    def __init__(self, approximate: int = NONE) -> None:
        super().__init__()
        self.approximate = "tanh" if approximate == TANH else "none"

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)


@register("SiLU")
class SiLU(Elementwise):
    """y = x * sigmoid(x): Swish with ``beta`` 1. Elfwing et al. 2017.

    Torch: ``F.silu``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


@register("Mish")
class Mish(Elementwise):
    """y = x * tanh(log(1 + exp(x))). Misra 2019.

    Torch: ``F.mish``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(x)


@register("HardSwish")
class HardSwish(Elementwise):
    """y = x * min(max(x + 3, 0), 6) / 6. Howard et al. 2019.

    At x = -3 the gradient is 0 and at x = 3 it is 1, as in torch.

    Torch: ``F.hardswish``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x)


@register("HardSigmoid")
class HardSigmoid(Elementwise):
    """y = min(max(x + 3, 0), 6) / 6. The gradient is 0 where y is 0 or 1.

    Torch: ``F.hardsigmoid``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.hardsigmoid(x)


@register("ReLU6")
class ReLU6(Elementwise):
    """y = min(max(x, 0), 6). The gradient at 0 and 6 is 0. Krizhevsky 2010.

    Torch: ``F.relu6``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x)


@register("SELU")
class SELU(Elementwise):
    """y = s * x where x > 0, else s * a * (exp(x) - 1), s = 1.0507 and a = 1.6733.

    The constants keep mean 0 and variance 1 from layer to layer. Klambauer et al. 2017.

    Torch: ``F.selu``, the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.selu(x)


@register("Softplus")
class Softplus(Elementwise):
    """y = log(1 + exp(beta x)) / beta, and x itself where beta x > ``threshold`` (20).

    ``beta`` is 1 by default and must be positive.

    Torch: ``F.softplus``, the same.
    """

    message_field = "softplus_param"

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        if beta <= 0:
            raise LayerError(f"beta must be greater than 0, got {beta:g}", "softplus_param.beta")
        self.beta = beta
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x, self.beta, self.threshold)
