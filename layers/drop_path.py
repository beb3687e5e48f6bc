"""DropPath: whole branches left out while training."""

from __future__ import annotations

from torch import Tensor

from ..proto.errors import LayerError
from .base import TRAIN, Context, Layer, Shape
from .registry import register


@register("DropPath")
class DropPath(Layer):
    """In TRAIN each item of the batch becomes 0 with chance ``drop_ratio``, else x / (1 - ratio).

    bottom ``(N, ...)`` -> top of the same shape, also in place. ``drop_ratio`` is 0.1 by default.
    Put before the Eltwise SUM of a residual block it leaves out the branch (stochastic depth). In
    TEST the top is the bottom. Huang et al. 2016; torchvision calls it StochasticDepth.

    Torch: ``torchvision.ops.stochastic_depth`` in mode "row".
    """

    message_field = "drop_path_param"
    allows_in_place = True
    keeps_shape = True

    def __init__(self, drop_ratio: float = 0.1, context: Context | None = None) -> None:
        super().__init__()
        if not 0 <= drop_ratio < 1:
            raise LayerError(
                f"drop_ratio must be at least 0 and below 1, got {drop_ratio:g}",
                "drop_path_param.drop_ratio",
            )
        self.drop_ratio = drop_ratio
        self.active = drop_ratio > 0 and (context is None or context.phase == TRAIN)

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        kept = 1.0 - self.drop_ratio
        mask = x.new_empty((x.shape[0], *[1] * (x.dim() - 1))).bernoulli_(kept)
        return x * mask.div_(kept)

    def check_shapes(self, *bottoms: Shape) -> None:
        if self.active and not bottoms[0]:
            raise LayerError("the bottom must have the axes (N, ...), got shape ()", "bottom")
