"""AdaptivePooling: windows chosen so that the top has a given size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Layer, Shape
from .registry import register

MAX: int = caffe_pb2.AdaptivePoolingParameter.MAX
AVE: int = caffe_pb2.AdaptivePoolingParameter.AVE

_FUNCTIONS: dict[tuple[int, int], Callable[..., Tensor]] = {
    (MAX, 1): F.adaptive_max_pool1d,
    (MAX, 2): F.adaptive_max_pool2d,
    (MAX, 3): F.adaptive_max_pool3d,
    (AVE, 1): F.adaptive_avg_pool1d,
    (AVE, 2): F.adaptive_avg_pool2d,
    (AVE, 3): F.adaptive_avg_pool3d,
}


@register("AdaptivePooling")
class AdaptivePooling(Layer):
    """The maximum or average of windows that cut each spatial axis into ``output_size`` parts.

    bottom ``(N, C, spatial axes)``, one to three of them -> top ``(N, C, *output_size)``. Window i
    of n over an axis of size s reaches from floor(i s / n) to ceil((i + 1) s / n), so that windows
    may overlap. ``output_size`` is given once or once for each spatial axis; ``pool`` is AVE by
    default, or MAX.

    Torch: ``F.adaptive_avg_pool2d`` and its relatives, the same.
    """

    message_field = "adaptive_pooling_param"

    def __init__(self, pool: int = AVE, output_size: Sequence[int] = ()) -> None:
        super().__init__()
        if not output_size or min(output_size) < 1:
            raise LayerError(
                f"output_size must be given and positive, got {list(output_size)}",
                "adaptive_pooling_param.output_size",
            )
        self.pool = pool
        self.output_size = tuple(output_size)

    def forward(self, x: Tensor) -> Tensor:
        size = self._size(x.shape)
        return _FUNCTIONS[self.pool, len(size)](x, size)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        return [(*shape[:2], *self._size(shape))]

    def _size(self, shape: Shape) -> Shape:
        """The sizes of the top's spatial axes for a bottom of ``shape``."""
        spatial = len(shape) - 2
        if spatial not in (1, 2, 3):
            raise LayerError(
                f"the bottom must have 3 to 5 axes (N, C, ...), got shape {tuple(shape)}",
                "bottom",
            )
        size = self.output_size * spatial if len(self.output_size) == 1 else self.output_size
        if len(size) != spatial:
            raise LayerError(
                f"output_size must be given once or once for each of the {spatial} spatial axes, "
                f"got {list(size)}",
                "adaptive_pooling_param.output_size",
            )
        return size
