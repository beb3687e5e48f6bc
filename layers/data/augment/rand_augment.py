"""RandAugment: a few operations at random, all of one strength (Cubuk et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from . import colour, geometry
from .base import Image, Randomness, with_channels

#: The strongest magnitude.
MAX_MAGNITUDE = 30.0

#: Changes an image by a strength from 0 to 1, which may be negative for operations of two sides.
Change = Callable[[Image, float], Image]


def _identity(image: Image, strength: float) -> Image:
    return image


def _shear_x(image: Image, strength: float) -> Image:
    slope, centre = 0.3 * strength, (image.shape[0] - 1) / 2
    return geometry.warped(image, [[1, slope, -slope * centre], [0, 1, 0]])


def _shear_y(image: Image, strength: float) -> Image:
    slope, centre = 0.3 * strength, (image.shape[1] - 1) / 2
    return geometry.warped(image, [[1, 0, 0], [slope, 1, -slope * centre]])


def _translate_x(image: Image, strength: float) -> Image:
    return geometry.warped(image, [[1, 0, 0.45 * strength * image.shape[1]], [0, 1, 0]])


def _translate_y(image: Image, strength: float) -> Image:
    return geometry.warped(image, [[1, 0, 0], [0, 1, 0.45 * strength * image.shape[0]]])


def _rotate(image: Image, strength: float) -> Image:
    return geometry.rotated(image, 30 * strength)


def _brightness(image: Image, strength: float) -> Image:
    return colour.brightened(image, 1 + 0.9 * strength)


def _contrast(image: Image, strength: float) -> Image:
    return colour.contrasted(image, 1 + 0.9 * strength)


def _saturation(image: Image, strength: float) -> Image:
    return colour.saturated(image, 1 + 0.9 * strength)


def _sharpness(image: Image, strength: float) -> Image:
    factor = 1 + 0.9 * strength
    blurred = cv2.blur(image, (3, 3))
    return with_channels(cv2.addWeighted(with_channels(blurred), 1 - factor, image, factor, 0))


def _posterize(image: Image, strength: float) -> Image:
    dropped = round(4 * strength)
    return colour.looked_up(image, np.arange(256) >> dropped << dropped)


def _solarize(image: Image, strength: float) -> Image:
    values = np.arange(256)
    return colour.looked_up(image, np.where(values < 256 * (1 - strength), values, 255 - values))


def _stretch(image: Image, strength: float) -> Image:
    planes = []
    for plane in cv2.split(image):
        low, high = int(plane.min()), int(plane.max())
        table = (np.arange(256) - low) * 255 / max(1, high - low)
        planes.append(plane if low == high else colour.looked_up(plane[:, :, None], table)[:, :, 0])
    return np.stack(planes, axis=2)


def _equalize(image: Image, strength: float) -> Image:
    return np.stack([cv2.equalizeHist(plane) for plane in cv2.split(image)], axis=2)


#: The operations, and whether their strength has a random sign.
OPERATIONS: tuple[tuple[Change, bool], ...] = (
    (_identity, False),
    (_shear_x, True),
    (_shear_y, True),
    (_translate_x, True),
    (_translate_y, True),
    (_rotate, True),
    (_brightness, True),
    (_contrast, True),
    (_saturation, True),
    (_sharpness, True),
    (_posterize, False),
    (_solarize, False),
    (_stretch, False),
    (_equalize, False),
)


@dataclass(frozen=True, slots=True)
class RandAugment:
    """``count`` operations drawn with repetition, each of strength ``magnitude`` / 30."""

    count: int
    magnitude: float

    def __call__(self, image: Image, random: Randomness) -> Image:
        for _ in range(self.count):
            change, two_sided = OPERATIONS[random.below(len(OPERATIONS))]
            negative = random.chance(0.5) and two_sided
            strength = self.magnitude / MAX_MAGNITUDE
            image = change(image, -strength if negative else strength)
        return image
