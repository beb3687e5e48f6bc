"""From the fields of transform_param to what is done to each image before and after its crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....proto import caffe_pb2
from ....proto.errors import DataError, LayerError
from ...base import TRAIN
from .base import Image, Operation, Randomness
from .colour import ColourJitter
from .erasing import Erasing
from .geometry import RandomResizedCrop, Resize, Rotation
from .mixing import Mixing
from .rand_augment import MAX_MAGNITUDE, RandAugment

_PATH = "transform_param.augment"
_RATIO = (3 / 4, 4 / 3)
_ERASED = (0.02, 0.33)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done beyond Caffe's transform, in this order.

    Resize or random resized crop; rotation, RandAugment, colour jitter; then Caffe's crop, mirror,
    mean and scale, before which ``erasing`` fills a part of the crop; ``mixing`` at the end.
    ``num_classes`` makes labels vectors. All of it is off unless given.
    """

    resize: Resize | None = None
    cropping: RandomResizedCrop | None = None
    operations: tuple[Operation, ...] = ()
    erasing: Erasing | None = None
    mixing: Mixing | None = None
    num_classes: int | None = None

    @classmethod
    def from_message(
        cls, message: caffe_pb2.TransformationParameter, phase: int
    ) -> Preparation | None:
        """Read the fields; None if nothing is asked for. LayerError for values out of range."""
        resize = _resize(message)
        augment = message.augment
        _check(augment)
        classes = augment.num_classes or None
        if augment.crop_area and not message.crop_size:
            raise LayerError("needs crop_size, the size it resizes to", f"{_PATH}.crop_area")
        if (augment.mixup_alpha or augment.cutmix_alpha) and not classes:
            raise LayerError(
                "must be given for mixup and cutmix, which make labels vectors",
                f"{_PATH}.num_classes",
            )
        if phase != TRAIN and not augment.in_test:
            return cls(resize, num_classes=classes) if resize or classes else None
        mixes = augment.mixup_alpha > 0 or augment.cutmix_alpha > 0
        found = cls(
            resize,
            _cropping(augment, message.crop_size),
            _operations(augment),
            _erasing(augment),
            Mixing(augment.mixup_alpha, augment.cutmix_alpha) if mixes else None,
            classes,
        )
        return found if found != cls() else None

    @property
    def changes_images(self) -> bool:
        """Whether images are changed one by one, which only bytes can be."""
        return bool(self.resize or self.cropping or self.operations or self.erasing)

    @property
    def is_random(self) -> bool:
        """Whether a sample needs random numbers."""
        return bool(self.cropping or self.operations or self.erasing)

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """What an image of ``shape`` (channels, height, width) has before the crop."""
        channels, height, width = shape
        if self.cropping is not None:
            return channels, self.cropping.size, self.cropping.size
        if self.resize is not None:
            return channels, *self.resize.size(height, width)
        return shape

    def settled_resize(self) -> Resize | None:
        """The resizing for images that nothing random is done to.

        Where only random resized crops are asked for it is the usual one: the crop is 7/8 of the
        shorter side.
        """
        if self.resize is None and self.cropping is not None:
            return Resize(side=round(self.cropping.size * 8 / 7))
        return self.resize

    def before_crop(self, image: Image, random: Randomness) -> Image:
        """The image that is cropped. DataError for an image that is not of bytes."""
        if image.dtype != np.uint8:
            raise DataError("images of float_data cannot be resized or augmented, only bytes can")
        if self.operations and image.shape[2] not in (1, 3):
            raise DataError(f"images must have 1 or 3 channels to augment, got {image.shape[2]}")
        if self.cropping is not None:
            image = self.cropping(image, random)
        elif self.resize is not None:
            image = self.resize(image)
        for operation in self.operations:
            image = operation(image, random)
        return image

    def after_crop(
        self, image: Image, region: tuple[int, int, int, int], random: Randomness
    ) -> Image:
        """The image with a part of its crop erased; ``region`` is top, left, height and width."""
        return image if self.erasing is None else self.erasing(image, region, random)


def _resize(message: caffe_pb2.TransformationParameter) -> Resize | None:
    height, width, side = message.resize_height, message.resize_width, message.resize_side
    if bool(height) != bool(width):
        raise LayerError(
            f"resize_height and resize_width must be given together, got {height} and {width}",
            f"transform_param.resize_{'width' if height else 'height'}",
        )
    if height and side:
        raise LayerError(
            "give resize_height and resize_width, or resize_side, got both",
            "transform_param.resize_side",
        )
    return Resize(height, width, side) if height or side else None


def _cropping(augment: caffe_pb2.AugmentationParameter, crop_size: int) -> RandomResizedCrop | None:
    if not augment.crop_area:
        return None
    area = _limits(augment.crop_area, (1.0, 1.0), "crop_area", 1.0)
    return RandomResizedCrop(crop_size, area, _limits(augment.crop_ratio, _RATIO, "crop_ratio"))


def _operations(augment: caffe_pb2.AugmentationParameter) -> tuple[Operation, ...]:
    found: list[Operation] = []
    if augment.max_angle:
        found.append(Rotation(augment.max_angle))
    if augment.rand_augment_ops:
        found.append(RandAugment(augment.rand_augment_ops, augment.rand_augment_magnitude))
    jitter = ColourJitter(augment.brightness, augment.contrast, augment.saturation, augment.hue)
    if jitter != ColourJitter():
        found.append(jitter)
    return tuple(found)


def _erasing(augment: caffe_pb2.AugmentationParameter) -> Erasing | None:
    if not augment.erase_probability:
        return None
    return Erasing(
        augment.erase_probability, _limits(augment.erase_area, _ERASED, "erase_area", 1.0)
    )


def _limits(
    values: Sequence[float], default: tuple[float, float], field: str, top: float = float("inf")
) -> tuple[float, float]:
    if not values:
        return default
    if len(values) != 2 or not 0 < values[0] <= values[1] <= top:
        within = f"; both above 0 and at most {top:g}" if top != float("inf") else "; both above 0"
        raise LayerError(
            f"must be two values, the lower and the upper limit{within}, got {list(values)}",
            f"{_PATH}.{field}",
        )
    return values[0], values[1]


#: The largest value of each field that has one; none may be negative.
_LARGEST = {
    "max_angle": 180.0,
    "hue": 0.5,
    "rand_augment_magnitude": MAX_MAGNITUDE,
    "erase_probability": 1.0,
}


def _check(augment: caffe_pb2.AugmentationParameter) -> None:
    for field, value in augment.ListFields():
        if field.type != field.TYPE_FLOAT or field.name in (
            "crop_area",
            "crop_ratio",
            "erase_area",
        ):
            continue
        largest = _LARGEST.get(field.name, float("inf"))
        if not 0 <= value <= largest:
            raise LayerError(
                f"must be from 0 to {largest:g}, got {value:g}", f"{_PATH}.{field.name}"
            )
