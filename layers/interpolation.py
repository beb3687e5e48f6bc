"""Interpolation and PixelShuffle: planes of another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, between
from .registry import register

_Parameter = caffe_pb2.InterpolationParameter
BILINEAR: int = _Parameter.BILINEAR
_MODES: dict[int, str] = {
    _Parameter.NEAREST: "nearest",
    _Parameter.BILINEAR: "bilinear",
    _Parameter.BICUBIC: "bicubic",
    _Parameter.AREA: "area",
}
_WITH_CORNERS = ("bilinear", "bicubic")


@register("Interpolation")
class Interpolation(Layer):
    """Each plane is sampled anew at another size.

    bottom ``(N, C, H, W)`` -> top ``(N, C, H', W')``. The size is ``height`` and ``width``, or
    ``factor`` times the bottom's, rounded down, or that of a second bottom, which gets no gradient.
    ``mode``: BILINEAR (the default), NEAREST, BICUBIC or AREA (averages). ``align_corners``, for
    BILINEAR and BICUBIC, puts the corners' centres on the bottom's.

    Torch: ``F.interpolate``, without antialiasing; BILINEAR is the default, not NEAREST.
    """

    message_field = "interpolation_param"
    bottoms = between(1, 2)

    def __init__(
        self,
        *,
        mode: int = BILINEAR,
        height: int | None = None,
        width: int | None = None,
        factor: float | None = None,
        align_corners: bool = False,
        context: Context | None = None,
    ) -> None:
        super().__init__()
        like_bottom = context is not None and len(context.shapes) == 2
        both = height is not None and width is not None
        if (height is None) != (width is None) or both + (factor is not None) + like_bottom != 1:
            raise LayerError(
                "give the size in one way: height and width, factor, or a second bottom",
                self.message_field,
            )
        if min(height or 1, width or 1) < 1 or (factor is not None and factor <= 0):
            raise LayerError("height, width and factor must be positive", self.message_field)
        self.size: Shape | None = (height, width) if height and width else None
        self.factor = factor
        self.options: dict[str, Any] = {"mode": _MODES[mode]}
        if self.options["mode"] in _WITH_CORNERS:
            self.options["align_corners"] = align_corners
        elif align_corners:
            raise LayerError(
                "align_corners works with BILINEAR and BICUBIC only",
                f"{self.message_field}.align_corners",
            )

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        size = self._size(x.shape, x.shape if like is None else like.shape)
        return F.interpolate(x, size, **self.options)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [(*bottoms[0][:2], *self._size(bottoms[0], bottoms[-1]))]

    def _size(self, shape: Shape, like: Shape) -> Shape:
        """H' and W' for a bottom of ``shape``, ``like`` being that of the last bottom."""
        if len(shape) != 4 or len(like) != 4:
            raise LayerError(
                f"the bottoms must have 4 axes (N, C, H, W), got shape {tuple(shape)}", "bottom"
            )
        if self.factor is not None:
            return tuple(int(length * self.factor) for length in shape[2:])
        return self.size or like[2:]


@register("PixelShuffle")
class PixelShuffle(Layer):
    """Channels become pixels: ``(N, C f^2, H, W)`` -> ``(N, C, H f, W f)``, f being ``factor`` (2).

    With ``inverse`` the other way. A convolution before it learns the upsampling. Shi et al. 2016.

    Torch: ``F.pixel_shuffle`` and ``F.pixel_unshuffle``, the same.
    """

    message_field = "pixel_shuffle_param"

    def __init__(self, factor: int = 2, inverse: bool = False) -> None:
        super().__init__()
        if factor < 1:
            raise LayerError(f"factor must be positive, got {factor}", "pixel_shuffle_param.factor")
        self.factor = factor
        self.inverse = inverse

    def forward(self, x: Tensor) -> Tensor:
        shuffle = F.pixel_unshuffle if self.inverse else F.pixel_shuffle
        return shuffle(x, self.factor)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,), factor = bottoms, self.factor
        if len(shape) < 3:
            raise LayerError(
                f"the bottom must have the axes (N, C, H, W), got shape {shape}", "bottom"
            )
        *batch, channels, height, width = shape
        if self.inverse and (height % factor or width % factor):
            raise LayerError(
                f"height and width must be multiples of {factor}, got shape {shape}", "bottom"
            )
        if not self.inverse and channels % factor**2:
            raise LayerError(
                f"the channels must be a multiple of {factor**2}, got shape {shape}", "bottom"
            )
        if self.inverse:
            return [(*batch, channels * factor**2, height // factor, width // factor)]
        return [(*batch, channels // factor**2, height * factor, width * factor)]
