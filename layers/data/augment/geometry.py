"""Augmentations that move pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .base import Image, Randomness, resized, with_channels

#: How often a window of random ratio is tried before the centre is taken, as in torchvision.
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Resize:
    """Resizes to ``height`` and ``width``, or so that the shorter side has ``side`` pixels."""

    height: int = 0
    width: int = 0
    side: int = 0

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of ``height`` and ``width`` gets."""
        if not self.side:
            return self.height, self.width
        shorter = min(height, width)
        return (
            max(1, round(height * self.side / shorter)),
            max(1, round(width * self.side / shorter)),
        )

    def __call__(self, image: Image, random: Randomness | None = None) -> Image:
        height, width = self.size(*image.shape[:2])
        return image if image.shape[:2] == (height, width) else resized(image, height, width)


@dataclass(frozen=True, slots=True)
class RandomResizedCrop:
    """A random part of the image, resized to a square of ``size`` (Szegedy et al., 2014).

    ``area`` limits the part's share of the image, ``ratio`` its width divided by its height; areas
    are drawn evenly, ratios evenly in their logarithm.
    """

    size: int
    area: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, image: Image, random: Randomness) -> Image:
        top, left, height, width = self._window(image.shape[0], image.shape[1], random)
        return resized(image[top : top + height, left : left + width], self.size, self.size)

    def _window(self, height: int, width: int, random: Randomness) -> tuple[int, int, int, int]:
        low, high = (math.log(each) for each in self.ratio)
        for _ in range(_ATTEMPTS):
            area = height * width * random.uniform(*self.area)
            ratio = math.exp(random.uniform(low, high))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                top, left = random.below(height - rows + 1), random.below(width - columns + 1)
                return top, left, rows, columns
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        rows = max(1, min(height, round(width / ratio)))
        columns = max(1, min(width, round(height * ratio)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates about the centre by up to ``max_angle`` degrees to either side."""

    max_angle: float

    def __call__(self, image: Image, random: Randomness) -> Image:
        return rotated(image, random.uniform(-self.max_angle, self.max_angle))


def rotated(image: Image, angle: float) -> Image:
    """``image`` rotated by ``angle`` degrees, counter-clockwise."""
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    return warped(image, cv2.getRotationMatrix2D(centre, angle, 1.0))


def warped(image: Image, matrix: ArrayLike) -> Image:
    """``image`` moved by an affine 2x3 matrix; what comes from outside repeats it mirrored."""
    return with_channels(
        cv2.warpAffine(
            image,
            np.asarray(matrix, np.float64),
            (image.shape[1], image.shape[0]),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    )
