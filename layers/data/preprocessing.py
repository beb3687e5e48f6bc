"""Preprocessing that travels: how a net's images were prepared, written down and applied again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError
from ..base import TEST
from . import image as images
from .augment import Preparation
from .augment.base import resized
from .augment.geometry import Resize
from .transform import Draw, Picture, Transform, Window

BGR, RGB, GRAY = "BGR", "RGB", "GRAY"

#: The path of an image file, its bytes, or an array (height, width, channels) or (height, width).
ImageSource = str | Path | bytes | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Views:
    """Which parts of an image the net sees: the centre, also mirrored with ``flip``, or with
    ``crops`` 10 the four corners, the centre, and these mirrored (Krizhevsky et al., 2012)."""

    crops: int = 1
    flip: bool = False

    @property
    def count(self) -> int:
        """How many views an image has."""
        return 10 if self.crops == 10 else 2 if self.flip else 1

    def windows(self, height: int, width: int, size: tuple[int, int]) -> list[Window]:
        """The windows of ``size`` (height, width) in an image of ``height`` and ``width``."""
        free_rows, free_columns = height - size[0], width - size[1]
        places = [(free_rows // 2, free_columns // 2)]
        if self.crops == 10:
            corners = [(row, column) for row in (0, free_rows) for column in (0, free_columns)]
            places = [*corners, *places]
        mirrored = (False, True) if self.crops == 10 or self.flip else (False,)
        return [Window(row, column, mirror) for mirror in mirrored for row, column in places]


CENTRE = Views()


class Preprocessing:
    """From an image file, record or array to a net's input: resize, crop, mean, scale.

    It is made of the same :class:`Transform` as the data layers, in the phase TEST, so that both
    give the same bytes. ``shape`` is that of one input (channels, height, width); ``blob`` the
    input's name; ``channel_order`` what the net was trained on. Where nothing is said of resizing,
    images are brought to ``image_size`` (height, width), which those of the training had, if any.
    """

    def __init__(
        self,
        blob: str,
        shape: tuple[int, int, int],
        channel_order: str,
        transform: Transform,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self.blob = blob
        self.shape = shape
        self.channel_order = channel_order
        self.transform = transform
        self.image_size = image_size

    @classmethod
    def from_message(cls, message: caffe_pb2.Preprocessing) -> Preprocessing:
        """Read the description that a snapshot holds; DataError if it contradicts itself."""
        resize = None
        if message.resize_side or message.resize_height:
            resize = Resize(message.resize_height, message.resize_width, message.resize_side)
        mean = message.mean_image
        if message.HasField("mean_image") and len(mean.data) != np.prod(mean.shape.dim):
            raise DataError(
                f"the stored mean image has {len(mean.data)} values for {list(mean.shape.dim)}"
            )
        has_mean = message.HasField("mean_image")
        transform = Transform(
            TEST,
            scale=message.scale_value or message.scale,
            crop_size=message.crop_size,
            mean_values=message.mean_value,
            mean_image=np.array(mean.data, np.float32).reshape(mean.shape.dim)
            if has_mean
            else None,
            mode=images.GRAY if message.channel_order == GRAY else images.COLOR,
            preparation=Preparation(resize),
        )
        shape = (message.channels, message.height, message.width)
        size = (message.image_height, message.image_width) if message.image_height else None
        return cls(message.blob, shape, message.channel_order or BGR, transform, size)

    def to_message(self) -> caffe_pb2.Preprocessing:
        """The description as it is stored with weights."""
        message = self.transform.description()
        message.blob, message.channel_order = self.blob, self.channel_order
        message.channels, message.height, message.width = self.shape
        if self.image_size is not None:
            message.image_height, message.image_width = self.image_size
        return message

    def __call__(self, source: ImageSource, order: str = BGR) -> Tensor:
        """The input for one image, float32 of :attr:`shape`.

        Arrays have values from 0 to 255, and their channels come in ``order``. DataError for what
        cannot be read or does not make the shape.
        """
        return self.views(source, CENTRE, order)[0]

    def views(self, source: ImageSource, views: Views, order: str = BGR) -> Tensor:
        """The inputs for the views of one image, (views, channels, height, width)."""
        if isinstance(source, np.ndarray):
            return self.of_picture(Picture(np.atleast_3d(source), interleaved=True), views, order)
        mode = self.transform.mode
        if isinstance(source, bytes):
            image = images.decode(source, mode)
        else:
            image = images.read(source, mode)
        return self.of_picture(Picture(image, interleaved=True), views)

    def batch(self, sources: Sequence[ImageSource], order: str = BGR) -> Tensor:
        """The inputs for several images, (images, channels, height, width)."""
        return torch.stack([self(source, order) for source in sources])

    @property
    def record_mode(self) -> int:
        """How encoded records of a database are decoded, which are not turned as files may be."""
        return images.GRAY if self.channel_order == GRAY else images.NATIVE

    def of_picture(
        self, picture: Picture, views: Views = CENTRE, order: str = BGR, stored: bool = False
    ) -> Tensor:
        """The inputs for the views of an image, (views, channels, height, width).

        Images ``stored`` in a database are taken as a data layer takes them, without bringing them
        to :attr:`image_size`.
        """
        found = picture.shape
        picture = self._in_channels(picture, order)
        size = self.image_size
        if size and not (stored or self.transform.preparation.resize or picture.shape[1:] == size):
            picture = Picture(resized(picture.with_channels_last(), *size), interleaved=True)
        if (shape := self.transform.top_shape(picture.shape)) != self.shape:
            raise DataError(
                f"an image of {found} makes an input of {shape}, the net needs {self.shape} "
                "(channels, height, width)"
            )
        picture, _ = self.transform.place(picture, Draw())
        windows = views.windows(*picture.shape[1:], shape[1:])
        out = np.empty((len(windows), *shape), np.float32)
        for place, window in enumerate(windows):
            self.transform.write(picture, window, out[place])
        return torch.from_numpy(out)

    def _in_channels(self, picture: Picture, order: str) -> Picture:
        """``picture`` in the channels of the net."""
        channels, wanted = picture.shape[0], self.shape[0]
        if channels == 3 and wanted == 1 and self.channel_order == GRAY:
            code = cv2.COLOR_RGB2GRAY if order == RGB else cv2.COLOR_BGR2GRAY
            image = cv2.cvtColor(picture.with_channels_last(), code)
            return Picture(image[:, :, np.newaxis], interleaved=True)
        if channels == 4 and wanted in (1, 3):
            image = picture.with_channels_last()[:, :, :3]
            return self._in_channels(Picture(np.ascontiguousarray(image), True), order)
        if channels == 1 and wanted == 3:
            return Picture(np.repeat(picture.with_channels_last(), 3, axis=2), interleaved=True)
        if channels == 3 and {order, self.channel_order} == {BGR, RGB}:
            image = picture.with_channels_last()[:, :, ::-1]
            return Picture(np.ascontiguousarray(image), interleaved=True)
        return picture


def described(
    layer: caffe_pb2.LayerParameter, transform: Transform, top: Sequence[int], order: str = ""
) -> caffe_pb2.Preprocessing:
    """What a data layer's ``transform`` does, for a first top whose images are of shape ``top``.

    ``order`` is that of the channels, by default what the layer says of raw records.
    """
    message = transform.description()
    message.blob = layer.top[0]
    message.channels, message.height, message.width = top
    message.channel_order = order or transform.channel_order
    if message.channels != 3:
        message.channel_order = GRAY if message.channels == 1 else ""
    sizes = layer.image_data_param
    if sizes.new_height and sizes.new_width and not (message.resize_side or message.resize_height):
        message.resize_height, message.resize_width = sizes.new_height, sizes.new_width
    return message


def of_layer(
    layer: caffe_pb2.LayerParameter, image: Sequence[int], order: str = ""
) -> caffe_pb2.Preprocessing:
    """What a layer's ``transform_param`` and ``image_data_param`` say is done in the phase TEST to
    images of the shape ``image`` (channels, height, width) with channels in ``order``.

    LayerError or DataError for what cannot work. The layer's own source is not looked at.
    """
    transform = Transform.from_message(layer.transform_param, TEST)
    channels, height, width = image
    sizes = layer.image_data_param
    if sizes.new_height and sizes.new_width:
        height, width = sizes.new_height, sizes.new_width
    if transform.mode != images.NATIVE:
        channels = 3 if transform.mode == images.COLOR else 1
    elif not sizes.is_color:
        channels = 1
    return described(layer, transform, transform.top_shape((channels, height, width)), order)
