"""Split, Silence, Parameter: layers that only lead values somewhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, at_least, exactly
from .registry import register


@register("Split")
class Split(Layer):
    """Every top is the bottom; their gradients add up.

    Torch: has none: tensors may be used twice.
    """

    tops = at_least(1)

    def __init__(self, num_tops: int) -> None:
        super().__init__()
        self.num_tops = num_tops

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Split:
        return cls(context.num_tops)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,) * self.num_tops

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return bottoms * self.num_tops


@register("Silence")
class Silence(Layer):
    """Takes bottoms that nothing else uses, so that they are no outputs of the net.

    Torch: has none.
    """

    bottoms = at_least(1)
    tops = exactly(0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return ()


@register("Parameter")
class Parameter(Layer):
    """A learned blob, ``weight`` of the given ``shape``, as a top; it starts at 0.

    Torch: ``nn.Parameter``, as a blob.
    """

    message_field = "parameter_param"
    bottoms = exactly(0)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.add_blob("weight", shape)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Parameter:
        shape = tuple(message.parameter_param.shape.dim)
        if min(shape, default=1) < 1:
            raise LayerError(
                f"the sizes of shape must be positive, got {list(shape)}", "parameter_param.shape"
            )
        return cls(shape)

    def forward(self) -> Tensor:
        return self.blob(0)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [tuple(self.blob(0).shape)]
