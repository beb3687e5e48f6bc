"""Input: tops of a stated shape that the caller feeds."""

from __future__ import annotations

from ...proto import caffe_pb2
from ...proto.errors import LayerError
from ..base import Context, Shape, at_least
from ..registry import register
from ..source import DataSource
from .shapes import per_top, shape_of


@register("Input")
class Input(DataSource):
    """Declares the shapes of the blobs that the caller gives to the net.

    One ``shape`` serves all tops, or there is one for each top. An Input delivers nothing.
    """

    message_field = "input_param"
    tops = at_least(1)
    delivers = False

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        self.shapes = shapes

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Input:
        path = "input_param.shape"
        shapes = [
            shape_of(shape, f"{path}.{index}")
            for index, shape in enumerate(message.input_param.shape)
        ]
        if not shapes:
            raise LayerError("an Input layer needs a shape for its tops, got none", path)
        return cls(tuple(per_top(shapes, context.num_tops, path)))
