"""Scale and Bias: a factor or a summand for each slice of a bottom."""

from __future__ import annotations

from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import Context, Layer, Shape, between, canonical_axis
from .fillers import Filler, constant
from .registry import register


class Repeated(Layer):
    """Base of layers whose blob or second bottom meets the axes of the bottom from ``axis``."""

    bottoms = between(1, 2)
    allows_in_place = True
    keeps_shape = True

    axis: int

    def check_shapes(self, *bottoms: Shape) -> None:
        if len(bottoms) == 2:
            check_fit(*bottoms, self.axis)


@register("Scale")
class Scale(Repeated):
    """y = x * weight (+ bias), the blobs repeated over the axes of x that they do not have.

    bottom ``(...)`` -> top of the same shape. The blobs have the ``num_axes`` (1) axes of the
    bottom from ``axis`` (1); -1 means all of them, 0 a single number. ``weight`` starts at 1 unless
    ``filler`` says otherwise; ``bias`` is there with ``bias_term`` and starts at 0. A second bottom
    takes the place of ``weight``.

    Torch: ``torch.mul``, which aligns axes from the last, not from ``axis``.
    """

    message_field = "scale_param"

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        axis: int,
        shape: Shape,
        *,
        scale_bottom: bool = False,
        bias_term: bool = False,
        filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.bias_term = bias_term
        if not scale_bottom:
            self.add_blob("weight", shape, filler or constant(1.0))
        if bias_term:
            self.add_blob("bias", shape, bias_filler)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Scale:
        param = message.scale_param
        axis, shape = _operand(param, context.shapes, cls.message_field)
        has_filler = param.HasField("filler")
        return cls(
            axis,
            shape,
            scale_bottom=len(context.shapes) == 2,
            bias_term=param.bias_term,
            filler=fillers.from_message(param.filler, "scale_param.filler") if has_filler else None,
            bias_filler=fillers.from_message(param.bias_filler, "scale_param.bias_filler"),
        )

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        weight = _aligned(x, self.weight if scale is None else scale, self.axis)
        if self.bias_term:
            return (x * weight).add_(_aligned(x, self.bias, self.axis))
        return x * weight


@register("Bias")
class Bias(Repeated):
    """y = x + bias, the blob repeated over the axes of x that it does not have.

    ``axis`` and ``num_axes`` as in Scale; ``bias`` starts at 0 unless ``filler`` says otherwise. A
    second bottom takes its place.

    Torch: ``torch.add``, which aligns axes from the last, not from ``axis``.
    """

    message_field = "bias_param"

    bias: Tensor

    def __init__(
        self, axis: int, shape: Shape, *, bias_bottom: bool = False, filler: Filler | None = None
    ) -> None:
        super().__init__()
        self.axis = axis
        if not bias_bottom:
            self.add_blob("bias", shape, filler)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Bias:
        param = message.bias_param
        axis, shape = _operand(param, context.shapes, cls.message_field)
        return cls(
            axis,
            shape,
            bias_bottom=len(context.shapes) == 2,
            filler=fillers.from_message(param.filler, "bias_param.filler"),
        )

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return x + _aligned(x, self.bias if bias is None else bias, self.axis)


def _operand(
    param: caffe_pb2.ScaleParameter | caffe_pb2.BiasParameter, shapes: tuple[Shape, ...], field: str
) -> tuple[int, Shape]:
    """First axis and shape of the blob (or second bottom) that is combined with the bottom."""
    shape = shapes[0]
    if len(shapes) == 2:
        # A scalar fits any axis, so the field does not matter then.
        axis = canonical_axis(param.axis, len(shape), f"{field}.axis") if shapes[1] else 0
        return axis, shapes[1]
    if param.num_axes == 0:
        return 0, ()
    axis = canonical_axis(param.axis, len(shape), f"{field}.axis")
    if param.num_axes < -1 or axis + param.num_axes > len(shape):
        raise LayerError(
            f"num_axes must be -1 or from 0 to {len(shape) - axis} (the bottom has {len(shape)} "
            f"axes, and axis is {axis}), got {param.num_axes}",
            f"{field}.num_axes",
        )
    return axis, shape[axis:] if param.num_axes == -1 else shape[axis : axis + param.num_axes]


def _aligned(x: Tensor, operand: Tensor, axis: int) -> Tensor:
    """``operand`` with axes of 1 after it, so that its first axis meets ``axis`` of ``x``."""
    shape = operand.shape
    check_fit(x.shape, shape, axis)
    return operand.reshape((*shape, *[1] * (x.dim() - axis - len(shape))))


def check_fit(shape: Shape, operand: Shape, axis: int) -> None:
    """LayerError unless an operand meets axes of its own sizes from ``axis`` of a bottom."""
    if shape[axis : axis + len(operand)] != operand:
        raise LayerError(
            f"a blob of shape {tuple(operand)} does not fit the axes from {axis} "
            f"of a bottom of shape {tuple(shape)}"
        )
