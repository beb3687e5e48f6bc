"""Input: tops of a stated shape that the caller feeds."""

from __future__ import annotations

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import TEST, Context, Shape, at_least
from ..registry import register
from ..source import DataSource
from .shapes import per_top, shape_of


@register("Input")
class Input(DataSource):
    """Declares the shapes of the blobs that the caller gives to the net.

    One ``shape`` serves all tops, or there is one for each top. An Input delivers nothing. Its
    ``transform_param``, which Caffe passes over, says how images become the first top.
    """

    message_field = "input_param"
    tops = at_least(1)
    delivers = False

    def __init__(
        self, shapes: tuple[Shape, ...], note: caffe_pb2.LayerParameter | None = None
    ) -> None:
        self.shapes = shapes
        self._note = note

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Input:
        path = "input_param.shape"
        shapes = [
            shape_of(shape, f"{path}.{index}")
            for index, shape in enumerate(message.input_param.shape)
        ]
        if not shapes:
            raise LayerError("an Input layer needs a shape for its tops, got none", path)
        has_note = message.HasField("transform_param") or message.HasField("image_data_param")
        tops = tuple(per_top(shapes, context.num_tops, path))
        return cls(tops, message if has_note else None)

    def preprocessing(self, blob: str) -> caffe_pb2.Preprocessing | None:
        from .preprocessing import described
        from .transform import Transform

        shape = self.shapes[0]
        if self._note is None or len(shape) != 4:
            return None
        try:
            transform = Transform.from_message(self._note.transform_param, TEST)
        except LayerError as error:
            raise DataError(f"layer {self._note.name!r}: {error}") from None
        return described(self._note, transform, shape[1:])
