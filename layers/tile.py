"""Tile and Crop: repeating a blob, and cutting a window out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, canonical_axis, exactly
from .registry import register


@register("Tile")
class Tile(Layer):
    """The bottom ``tiles`` times, one after the other along ``axis`` (1).

    Torch: ``torch.repeat_interleave`` repeats elements; this is ``Tensor.repeat`` along one axis.
    """

    message_field = "tile_param"

    def __init__(self, tiles: int, axis: int = 1) -> None:
        super().__init__()
        self.tiles = tiles
        self.axis = axis

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Tile:
        param = message.tile_param
        if param.tiles < 1:
            raise LayerError("tiles must be given and positive", "tile_param.tiles")
        axis = canonical_axis(param.axis, len(context.shapes[0]), "tile_param.axis")
        return cls(param.tiles, axis)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.tiles, self.axis)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,), axis = bottoms, self.axis
        return [(*shape[:axis], shape[axis] * self.tiles, *shape[axis + 1 :])]


@register("Crop")
class Crop(Layer):
    """A part of the first bottom, with the sizes of the second at all axes from ``axis`` (2).

    It starts at ``offset``: one number for each of these axes, or one for all, or 0.

    Torch: slices ``x[:, :, a:b]``; the sizes are those of the second bottom.
    """

    message_field = "crop_param"
    bottoms = exactly(2)

    def __init__(self, axis: int = 2, offset: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.axis = axis
        self.offset = offset

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Crop:
        param = message.crop_param
        dimensions = len(context.shapes[0])
        axis = canonical_axis(param.axis, dimensions, "crop_param.axis")
        offset = tuple(param.offset)
        if len(offset) not in (0, 1, dimensions - axis):
            raise LayerError(
                f"offset must be given once or once for each of the {dimensions - axis} axes "
                f"from {axis}, got {len(offset)} values",
                "crop_param.offset",
            )
        return cls(axis, offset)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        for axis, start, size in self._windows(x.shape, reference.shape):
            x = x.narrow(axis, start, size)
        return x

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        sizes = [size for _, _, size in self._windows(*bottoms)]
        return [(*bottoms[0][: self.axis], *sizes)]

    def _windows(self, shape: Shape, reference: Shape) -> Iterator[tuple[int, int, int]]:
        """Axis, start and size of each cut; LayerError for what lies outside of ``shape``."""
        if len(shape) != len(reference):
            raise LayerError(
                f"both bottoms must have the same number of axes, got shapes {tuple(shape)} and "
                f"{tuple(reference)}",
                "bottom.1",
            )
        for axis in range(self.axis, len(shape)):
            size = reference[axis]
            index = axis - self.axis if len(self.offset) > 1 else 0
            start = self.offset[index] if self.offset else 0
            if start + size > shape[axis]:
                raise LayerError(
                    f"a crop of {size} from {start} reaches beyond axis {axis}, "
                    f"which has {shape[axis]}",
                    "crop_param.offset",
                )
            yield axis, start, size
