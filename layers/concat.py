"""Concat and Slice: joining blobs along an axis, and cutting one apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, at_least, canonical_axis
from .registry import register


@register("Concat")
class Concat(Layer):
    """The bottoms one after the other along ``axis`` (1), their other axes being equal.

    ``concat_dim`` is an older name of ``axis``.

    Torch: ``torch.cat``; ``axis`` is 1 unless given.
    """

    message_field = "concat_param"
    bottoms = at_least(1)

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Concat:
        axis = read_axis(message.concat_param, "concat_param", "concat_dim", context)
        return cls(axis)

    def forward(self, *bottoms: Tensor) -> Tensor:
        self.top_shapes(*(tuple(x.shape) for x in bottoms))
        return torch.cat(bottoms, self.axis)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        first, axis = bottoms[0], self.axis
        before, after = first[:axis], first[axis + 1 :]
        for index, shape in enumerate(bottoms):
            if (shape[:axis], shape[axis + 1 :]) != (before, after):
                raise LayerError(
                    f"the bottoms must have equal shapes except at axis {axis}, got "
                    f"{first} and {shape}",
                    f"bottom.{index}",
                )
        return [(*before, sum(shape[axis] for shape in bottoms), *after)]


@register("Slice")
class Slice(Layer):
    """The bottom cut along ``axis`` (1) into as many tops as are named.

    Cut before each ``slice_point`` (one fewer than there are tops, rising), or into equal parts.
    ``slice_dim`` is an older name of ``axis``.

    Torch: ``torch.split``, whose sizes are here the places of the cuts.
    """

    message_field = "slice_param"
    tops = at_least(1)

    def __init__(self, axis: int, num_tops: int, slice_point: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.axis = axis
        self.num_tops = num_tops
        self.slice_point = slice_point

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Slice:
        param = message.slice_param
        axis = read_axis(param, "slice_param", "slice_dim", context)
        points = tuple(param.slice_point)
        if points and len(points) != context.num_tops - 1:
            raise LayerError(
                f"there must be {context.num_tops - 1} slice_point for {context.num_tops} tops, "
                f"got {len(points)}",
                "slice_param.slice_point",
            )
        if any(b <= a for a, b in pairwise((0, *points))):
            raise LayerError(
                f"slice_point must rise from above 0, got {list(points)}", "slice_param.slice_point"
            )
        return cls(axis, context.num_tops, points)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self._sizes(x.shape[self.axis]), self.axis)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,), axis = bottoms, self.axis
        return [(*shape[:axis], size, *shape[axis + 1 :]) for size in self._sizes(shape[axis])]

    def _sizes(self, size: int) -> list[int]:
        """How much of the axis, which has ``size``, each top gets."""
        if not self.slice_point:
            if size % self.num_tops:
                raise LayerError(
                    f"axis {self.axis} with {size} values cannot be cut into {self.num_tops} "
                    "equal tops",
                    "top",
                )
            return [size // self.num_tops] * self.num_tops
        if self.slice_point[-1] >= size:
            raise LayerError(
                f"slice_point must be below the {size} values of axis {self.axis}, "
                f"got {self.slice_point[-1]}",
                "slice_param.slice_point",
            )
        edges = (0, *self.slice_point, size)
        return [b - a for a, b in pairwise(edges)]


def read_axis(
    param: caffe_pb2.ConcatParameter | caffe_pb2.SliceParameter,
    field: str,
    old_name: str,
    context: Context,
) -> int:
    """The axis, from ``axis`` or its older, unsigned name; both at once are refused."""
    dimensions = len(context.shapes[0])
    if not param.HasField(old_name):
        return canonical_axis(param.axis, dimensions, f"{field}.axis")
    if param.HasField("axis"):
        raise LayerError(f"give either axis or {old_name}, not both", f"{field}.{old_name}")
    return canonical_axis(getattr(param, old_name), dimensions, f"{field}.{old_name}")
