"""Flatten and Reshape: other axes for the same values."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, canonical_axis
from .registry import register


@register("Flatten")
class Flatten(Layer):
    """The axes from ``axis`` (1) to ``end_axis`` (-1, the last) become one.

    Torch: ``torch.flatten``, which starts at axis 0 unless told otherwise.
    """

    message_field = "flatten_param"

    def __init__(self, axis: int = 1, end_axis: int = -1) -> None:
        super().__init__()
        self.axis = axis
        self.end_axis = end_axis

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Flatten:
        param = message.flatten_param
        dimensions = len(context.shapes[0])
        axis = canonical_axis(param.axis, dimensions, "flatten_param.axis")
        end_axis = canonical_axis(param.end_axis, dimensions, "flatten_param.end_axis")
        if end_axis < axis:
            raise LayerError(
                f"end_axis must not be before axis {axis}, got {end_axis}", "flatten_param.end_axis"
            )
        return cls(axis, end_axis)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(self.axis, self.end_axis)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,), after = bottoms, self.end_axis + 1
        return [(*shape[: self.axis], prod(shape[self.axis : after]), *shape[after:])]


@register("Reshape")
class Reshape(Layer):
    """``num_axes`` (-1, all that follow) axes from ``axis`` (0) are replaced by those of ``shape``.

    In ``shape`` 0 copies the size of the bottom's axis at that place, and one -1 is found from the
    number of values. A negative ``axis`` counts from behind, -1 being after the last axis.

    Torch: ``torch.reshape``, in which 0 is a size and the whole shape is given.
    """

    message_field = "reshape_param"

    def __init__(self, shape: tuple[int, ...], axis: int = 0, num_axes: int = -1) -> None:
        super().__init__()
        self.shape = shape
        self.axis = axis
        self.num_axes = num_axes

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Reshape:
        param = message.reshape_param
        shape = tuple(param.shape.dim)
        dimensions = len(context.shapes[0])
        if shape.count(-1) > 1:
            raise LayerError(
                f"shape may hold one -1 at most, got {list(shape)}", "reshape_param.shape"
            )
        if min(shape, default=0) < -1:
            raise LayerError(
                f"the sizes of shape must be at least -1, got {list(shape)}", "reshape_param.shape"
            )
        axis = param.axis if param.axis >= 0 else dimensions + param.axis + 1
        if not 0 <= axis <= dimensions:
            raise LayerError(
                f"axis must be from {-dimensions - 1} to {dimensions}, got {param.axis}",
                "reshape_param.axis",
            )
        if param.num_axes < -1 or axis + param.num_axes > dimensions:
            raise LayerError(
                f"num_axes must be from -1 to {dimensions - axis}, got {param.num_axes}",
                "reshape_param.num_axes",
            )
        return cls(shape, axis, param.num_axes)

    def forward(self, x: Tensor) -> Tensor:
        (shape,) = self.top_shapes(x.shape)
        return x.reshape(shape)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        count = prod(shape)
        end = len(shape) if self.num_axes == -1 else self.axis + self.num_axes
        sizes = []
        for index, size in enumerate(self.shape):
            if size == 0 and self.axis + index >= len(shape):
                raise LayerError(
                    f"a size of 0 copies axis {self.axis + index}, which a bottom of shape "
                    f"{tuple(shape)} has not",
                    "reshape_param.shape",
                )
            sizes.append(shape[self.axis + index] if size == 0 else size)
        target = [*shape[: self.axis], *sizes, *shape[end:]]
        known = prod([size for size in target if size != -1])
        if -1 in target and known and count % known == 0:
            target[target.index(-1)] = count // known
        if prod(target) != count:
            raise LayerError(
                f"a bottom of shape {tuple(shape)} with {count} values cannot take the shape "
                f"{target}",
                "reshape_param.shape",
            )
        return [tuple(target)]
