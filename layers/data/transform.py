"""transform_param: crop, mirror, mean and scale of images, in Caffe's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import TRAIN
from ..source import Variation
from . import image as images
from .augment import Preparation
from .augment.base import Randomness
from .counter_random import Purpose, below, words

#: Pixels as uint8, or values as float32; OpenCV's types do not tell which.
Pixels = NDArray[Any]


class Draw(NamedTuple):
    """The random words of one sample; its window follows from them and the size of its image."""

    row: int = 0
    column: int = 0
    mirror: bool = False
    augment: int = 0


class Window(NamedTuple):
    """The part of an image that is taken, and whether it is mirrored."""

    row: int
    column: int
    mirror: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it comes: (channels, height, width), or (height, width, channels) if decoded."""

    pixels: Pixels
    interleaved: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        first, second, third = self.pixels.shape
        return (third, first, second) if self.interleaved else (first, second, third)

    def with_channels_last(self) -> Pixels:
        """The pixels as (height, width, channels)."""
        if self.interleaved:
            return self.pixels
        return np.ascontiguousarray(self.pixels.transpose(1, 2, 0))

    def crop(self, window: Window, height: int, width: int) -> Pixels:
        """The window as (channels, height, width), mirrored if it says so."""
        if self.interleaved:
            part = self.pixels[_rows(window, height), _columns(window, width)]
            return images.planes(cv2.flip(part, 1).reshape(part.shape) if window.mirror else part)
        part = self.pixels[:, _rows(window, height), _columns(window, width)]
        return _mirrored(self.pixels, window, height, width) if window.mirror else part


class Transform:
    """(pixel - mean) * scale over a window of the image, as in Caffe's DataTransformer.

    ``crop_size`` takes a square: anywhere in the image in TRAIN, at floor((size - crop) / 2) in
    TEST. ``mirror`` flips each sample with probability 1/2, in both phases. ``mean`` is an image
    (channels, height, width), of which the same window is subtracted, or one value or a value for
    each channel; ``scale`` is one value or a value for each channel. ``mode`` (force_color,
    force_gray) only affects encoded images. ``preparation`` is what is done before the crop beyond
    Caffe; ``channel_order`` is that of raw images, which is only written down.
    """

    def __init__(
        self,
        phase: int,
        *,
        scale: float | Sequence[float] = 1.0,
        mirror: bool = False,
        crop_size: int = 0,
        mean_image: NDArray[np.float32] | None = None,
        mean_values: Sequence[float] = (),
        mean_name: str = "the mean image",
        mode: int = images.NATIVE,
        preparation: Preparation | None = None,
        channel_order: str = "BGR",
    ) -> None:
        self.channel_order = channel_order
        self.preparation = preparation or Preparation()
        self.crop_size = crop_size
        self.mode = mode
        self._random_crop = phase == TRAIN and crop_size > 0
        self._mirror = mirror
        self._scales = np.atleast_1d(np.asarray(scale, np.float32))
        self._scaled = bool((self._scales != 1).any())
        self._mean_image = mean_image
        self._mirrored_mean = (
            None if mean_image is None else np.ascontiguousarray(mean_image[:, :, ::-1])
        )
        self._mean_name = mean_name
        self._mean_values = tuple(np.float32(value) for value in mean_values)
        self._constant = np.empty(0, np.float32)
        self._sent: dict[tuple[str, torch.device], Tensor] = {}

    @classmethod
    def from_message(cls, message: caffe_pb2.TransformationParameter, phase: int) -> Transform:
        """Read a transform_param; LayerError for fields that contradict each other."""
        if message.mean_file and message.mean_value:
            raise LayerError(
                f"give either mean_file ({message.mean_file!r}) or mean_value "
                f"({list(message.mean_value)}), got both",
                "transform_param.mean_value",
            )
        if message.force_color and message.force_gray:
            raise LayerError("give either force_color or force_gray, got both", "transform_param")
        if message.channel_order not in ("BGR", "RGB"):
            raise LayerError(
                f"must be BGR or RGB, got {message.channel_order!r}",
                "transform_param.channel_order",
            )
        mode = images.COLOR if message.force_color else images.NATIVE
        return cls(
            phase,
            scale=message.scale,
            mirror=message.mirror,
            crop_size=message.crop_size,
            mean_image=read_mean(message.mean_file) if message.mean_file else None,
            mean_values=message.mean_value,
            mean_name=message.mean_file,
            mode=images.GRAY if message.force_gray else mode,
            preparation=Preparation.from_message(message, phase),
            channel_order=message.channel_order,
        )

    def top_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape of the result for an image of ``shape``, (channels, height, width).

        Raises DataError, naming both sizes, for an image smaller than the crop, or a mean that does
        not fit the image. Both are held against the image as it is after resizing.
        """
        shape = self.preparation.shape(shape)
        channels, height, width = shape
        if self.crop_size > min(height, width):
            raise DataError(
                f"crop_size {self.crop_size} is larger than the image of {height}x{width} "
                "(height x width)"
            )
        if self._mean_image is not None and self._mean_image.shape != shape:
            raise DataError(
                f"{self._mean_name} is {_text(self._mean_image.shape)}, the image is "
                f"{_text(shape)} (channels x height x width); they must be equal"
            )
        if len(self._mean_values) not in (0, 1, channels):
            raise DataError(
                f"{len(self._mean_values)} values of mean_value are given for an image of "
                f"{channels} channels (must be one, or one for each channel)"
            )
        if len(self._scales) not in (1, channels):
            raise DataError(
                f"{len(self._scales)} values of scale are given for an image of {channels} channels"
            )
        if self.crop_size:
            return channels, self.crop_size, self.crop_size
        return shape

    def description(self) -> caffe_pb2.Preprocessing:
        """What the transform does with an image when nothing is random, as a message."""
        message = caffe_pb2.Preprocessing(
            crop_size=self.crop_size,
            mean_value=map(float, self._mean_values),
        )
        if len(self._scales) == 1:
            message.scale = float(self._scales[0])
        else:
            message.scale_value.extend(self._scales.tolist())
        if self._mean_image is not None:
            message.mean_image.shape.dim.extend(self._mean_image.shape)
            message.mean_image.data.extend(self._mean_image.ravel().tolist())
        resize = self.preparation.settled_resize()
        if resize is not None:
            if resize.side:
                message.resize_side = resize.side
            else:
                message.resize_height, message.resize_width = resize.height, resize.width
        return message

    @property
    def crops_anywhere(self) -> bool:
        """Whether the crop of an image larger than it is at a random place."""
        return self._random_crop

    def variation(self, shape: tuple[int, int, int]) -> Variation | None:
        """What makes the results of an image differ from epoch to epoch, for images of ``shape``
        (channels, height, width)."""
        if self.preparation.mixing is not None:
            return Variation("transform_param.augment.mixup_alpha or cutmix_alpha", batch=True)
        if self.preparation.is_random:
            return Variation("transform_param.augment")
        if self._mirror:
            return Variation("transform_param.mirror")
        if self._random_crop and self.preparation.shape(shape)[1:] != (self.crop_size,) * 2:
            return Variation("transform_param.crop_size, at a random place in TRAIN,")
        return None

    def draws(self, seed: int, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> list[Draw]:
        """The random words of the samples at ``indices`` of ``epochs``."""
        if not (self._random_crop or self._mirror or self.preparation.is_random):
            return [Draw()] * len(indices)
        drawn = [
            words(seed, purpose, epochs, indices).tolist()
            for purpose in (Purpose.ROW, Purpose.COLUMN, Purpose.MIRROR, Purpose.AUGMENT)
        ]
        return [
            Draw(row, column, self._mirror and mirror >= 1 << 63, augment)
            for row, column, mirror, augment in zip(*drawn, strict=True)
        ]

    def place(self, picture: Picture, draw: Draw) -> tuple[Picture, Window]:
        """The picture resized and augmented, and the window that is to be taken of it."""
        if not self.preparation.changes_images:
            return picture, self.window(draw, *picture.shape[1:])
        random = Randomness(draw.augment)
        image = self.preparation.before_crop(picture.with_channels_last(), random)
        window = self.window(draw, *image.shape[:2])
        size = (self.crop_size, self.crop_size) if self.crop_size else image.shape[:2]
        image = self.preparation.after_crop(image, (window.row, window.column, *size), random)
        return Picture(image, interleaved=True), window

    def window(self, draw: Draw, height: int, width: int) -> Window:
        """The window that ``draw`` takes of an image of ``height`` and ``width``."""
        if not self.crop_size:
            return Window(0, 0, draw.mirror)
        free_rows, free_columns = height - self.crop_size, width - self.crop_size
        if not self._random_crop:
            return Window(free_rows // 2, free_columns // 2, draw.mirror)
        return Window(
            below(draw.row, free_rows + 1), below(draw.column, free_columns + 1), draw.mirror
        )

    def write(self, picture: Picture, window: Window, out: NDArray[np.float32]) -> None:
        """Write the transformed window into ``out``, (channels, height, width)."""
        crop = picture.crop(window, *out.shape[1:])
        mean = self._mean(window, out.shape)
        if mean is None:
            np.copyto(out, crop)
        else:
            # One call for the image: threads wait for each other whenever a call returns.
            cv2.subtract(_spatial(crop), _spatial(mean), _spatial(out), dtype=cv2.CV_32F)
        if self._scaled:
            np.multiply(out, self._scales.reshape(-1, 1, 1), out=out)

    def write_bytes(self, picture: Picture, window: Window, out: NDArray[np.uint8]) -> None:
        """Write the window, mirrored but neither centred nor scaled: :meth:`finish` does that."""
        np.copyto(out, picture.crop(window, *out.shape[1:]))

    def finish(self, pixels: Tensor, windows: Sequence[Window]) -> Tensor:
        """Subtract the mean and scale a batch of :meth:`write_bytes`, on the device it is on."""
        batch = pixels.to(torch.float32)
        mean = self._mean_on(pixels.device)
        if mean is not None and self._mean_image is None:
            batch -= mean
        elif mean is not None:
            batch -= _gather_windows(mean, windows, pixels.shape[-2:])
        if not self._scaled:
            return batch
        if len(self._scales) == 1:
            return batch.mul_(float(self._scales[0]))
        return batch.mul_(self._on(pixels.device, "scale", self._scales.reshape(-1, 1, 1)))

    def _mean(self, window: Window, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """What is subtracted from the window: that of the mean image is mirrored as the pixels."""
        if self._mean_image is None:
            return self._mean_of_values(shape)
        height, width = shape[1:]
        if not window.mirror:
            return self._mean_image[:, _rows(window, height), _columns(window, width)]
        assert self._mirrored_mean is not None
        start = self._mean_image.shape[2] - width - window.column
        return self._mirrored_mean[:, _rows(window, height), start : start + width]

    def _mean_of_values(self, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """The mean values as an image of ``shape``: OpenCV takes only four values for a scalar."""
        if not self._mean_values:
            return None
        constant = self._constant
        if constant.shape != shape:
            values = np.array(self._mean_values, np.float32).reshape(-1, 1, 1)
            self._constant = constant = np.ascontiguousarray(np.broadcast_to(values, shape))
        return constant

    def _mean_on(self, device: torch.device) -> Tensor | None:
        if self._mean_image is not None:
            return self._on(device, "mean", self._mean_image)
        if not self._mean_values:
            return None
        return self._on(device, "mean", np.array(self._mean_values, np.float32).reshape(-1, 1, 1))

    def _on(self, device: torch.device, name: str, values: NDArray[np.float32]) -> Tensor:
        """``values`` on ``device``, sent there once under ``name``."""
        found = self._sent.get((name, device))
        if found is None:
            # What another thread has put there in the meantime may be in use, so it stays.
            found = self._sent.setdefault((name, device), torch.from_numpy(values).to(device))
        return found


def read_mean(path: str | Path) -> NDArray[np.float32]:
    """The mean image in a binaryproto file, (channels, height, width)."""
    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(images.read_bytes(path))
    except DecodeError:
        raise DataError(f"{path}: this is no mean file (a BlobProto in binary form)") from None
    values = np.array(blob.double_data or blob.data, np.float32)
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or values.size == 0 or values.size != np.prod(shape, dtype=np.int64):
        raise DataError(
            f"{path}: a mean file must hold one image (channels x height x width), "
            f"got the shape {_text(shape)} with {values.size:,} values"
        )
    return values.reshape(shape)


def _rows(window: Window, height: int) -> slice:
    return slice(window.row, window.row + height)


def _columns(window: Window, width: int) -> slice:
    return slice(window.column, window.column + width)


def _mirrored(pixels: Pixels, window: Window, height: int, width: int) -> Pixels:
    """The mirrored window of planes: one call flips all rows from its first to its last."""
    channels, rows = pixels.shape[:2]
    count = (channels - 1) * rows + height
    flipped = np.empty((channels * rows, width), pixels.dtype)
    band = pixels.reshape(channels * rows, -1)[_rows(window, count), _columns(window, width)]
    cv2.flip(band, 1, flipped[:count])
    return flipped.reshape(channels, rows, width)[:, :height]


def _spatial(image: Pixels) -> cv2.Mat:
    """An image for OpenCV that has three axes in space, in place of two and channels."""
    return cv2.Mat(image, wrap_channels=False)


def _gather_windows(mean: Tensor, windows: Sequence[Window], size: torch.Size) -> Tensor:
    """The mean image's windows as one batch (samples, channels, height, width)."""
    height, width = size
    rows = torch.tensor([window.row for window in windows])[:, None] + torch.arange(height)
    columns = torch.tensor([window.column for window in windows])[:, None] + torch.arange(width)
    mirrored = torch.tensor([window.mirror for window in windows])
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = (each.to(mean.device, non_blocking=True) for each in (rows, columns))
    return mean[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
