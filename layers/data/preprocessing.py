"""Preprocessing that travels: how a net's images were prepared, written down and applied again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError
from ...proto.weights import read_preprocessing
from ..base import TEST
from . import image as images
from .augment import Preparation
from .augment.geometry import Resize
from .transform import Draw, Picture, Transform

BGR, RGB, GRAY = "BGR", "RGB", "GRAY"


class Preprocessing:
    """From an image file or array to a net's input: resize, centre crop, mean, scale.

    It is made of the same :class:`Transform` as the data layers, in the phase TEST, so that both
    give the same bytes. ``shape`` is that of one input (channels, height, width); ``blob`` the
    input's name; ``channel_order`` what the net was trained on.
    """

    def __init__(
        self, blob: str, shape: tuple[int, int, int], channel_order: str, transform: Transform
    ) -> None:
        self.blob = blob
        self.shape = shape
        self.channel_order = channel_order
        self.transform = transform

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
            scale=message.scale,
            crop_size=message.crop_size,
            mean_values=message.mean_value,
            mean_image=np.array(mean.data, np.float32).reshape(mean.shape.dim)
            if has_mean
            else None,
            mode=images.GRAY if message.channel_order == GRAY else images.COLOR,
            preparation=Preparation(resize),
        )
        shape = (message.channels, message.height, message.width)
        return cls(message.blob, shape, message.channel_order or BGR, transform)

    def to_message(self) -> caffe_pb2.Preprocessing:
        """The description as it is stored with weights."""
        message = self.transform.description()
        message.blob, message.channel_order = self.blob, self.channel_order
        message.channels, message.height, message.width = self.shape
        return message

    def __call__(self, source: str | Path | bytes | NDArray[Any], order: str = BGR) -> Tensor:
        """The input for one image, float32 of :attr:`shape`.

        ``source`` is the path of an image file, its bytes, or an array (height, width, channels) or
        (height, width) with values from 0 to 255, whose channels come in ``order``. DataError for
        what cannot be read or does not make the shape.
        """
        if isinstance(source, np.ndarray):
            image = self._converted(np.atleast_3d(source), order)
        elif isinstance(source, bytes):
            image = self._converted(images.decode(source, self.transform.mode), BGR)
        else:
            image = self._converted(images.read(source, self.transform.mode), BGR)
        picture = Picture(image, interleaved=True)
        if (shape := self.transform.top_shape(picture.shape)) != self.shape:
            raise DataError(
                f"an image of {picture.shape} makes an input of {shape}, the net needs "
                f"{self.shape} (channels, height, width)"
            )
        out = np.empty(shape, np.float32)
        self.transform.write(*self.transform.place(picture, Draw()), out)
        return torch.from_numpy(out)

    def batch(
        self, sources: Sequence[str | Path | bytes | NDArray[Any]], order: str = BGR
    ) -> Tensor:
        """The inputs for several images, (images, channels, height, width)."""
        return torch.stack([self(source, order) for source in sources])

    def _converted(self, image: NDArray[Any], order: str) -> NDArray[Any]:
        """``image`` in the channels of the net."""
        channels = image.shape[2]
        if channels == 4:
            image, channels = image[:, :, :3], 3
        if self.channel_order == GRAY:
            if channels == 3:
                code = cv2.COLOR_RGB2GRAY if order == RGB else cv2.COLOR_BGR2GRAY
                return cv2.cvtColor(np.ascontiguousarray(image), code)[:, :, np.newaxis]
            return image
        if channels == 1 and self.shape[0] == 3:
            return np.repeat(image, 3, axis=2)
        if channels == 3 and {order, self.channel_order} == {BGR, RGB}:
            return np.ascontiguousarray(image[:, :, ::-1])
        return np.ascontiguousarray(image)


def of_weights(path: str | Path) -> list[Preprocessing]:
    """What a .caffemodel or HDF5 file of weights says about its inputs; empty if it says nothing.

    Caffe's own files say nothing. SnapshotError for a file that is no weights.
    """
    return [Preprocessing.from_message(each) for each in read_preprocessing(path)]
