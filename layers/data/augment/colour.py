"""Augmentations that change colours. Images have one channel, or three (BGR)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .base import Image, Randomness, with_channels

#: Luma of Rec. 601 for BGR, as in OpenCV's conversion to grey.
_LUMA = np.array([0.114, 0.587, 0.299], np.float32)


def brightened(image: Image, factor: float) -> Image:
    """Every value times ``factor``."""
    return with_channels(cv2.convertScaleAbs(image, alpha=factor))


def contrasted(image: Image, factor: float) -> Image:
    """Distances from the mean grey level times ``factor``."""
    mean = float(grey(image).mean())
    table = np.arange(256, dtype=np.float32) * factor + (1 - factor) * mean
    return looked_up(image, table)


def saturated(image: Image, factor: float) -> Image:
    """Distances from each pixel's grey level times ``factor``; grey images stay as they are."""
    if image.shape[2] != 3:
        return image
    matrix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * _LUMA[None, :]
    return cv2.transform(image, matrix)


def hue_shifted(image: Image, turns: float) -> Image:
    """Hues moved by ``turns`` of the colour circle; grey images stay as they are."""
    if image.shape[2] != 3:
        return image
    converted = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    # OpenCV keeps hues in bytes as 0 to 179.
    hues = (converted[:, :, 0].astype(np.int16) + round(turns * 180)) % 180
    converted[:, :, 0] = hues.astype(np.uint8)
    return cv2.cvtColor(converted, cv2.COLOR_HSV2BGR)


def grey(image: Image) -> Image:
    """The grey levels, (height, width)."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.shape[2] == 3 else image[:, :, 0]


def looked_up(image: Image, table: np.ndarray) -> Image:
    """Each value replaced by that of ``table``, rounded and kept in 0 to 255."""
    return with_channels(cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8)))


@dataclass(frozen=True, slots=True)
class ColourJitter:
    """Random brightness, contrast, saturation and hue, in random order.

    The first three are factors from 1 - x to 1 + x (not below 0), hue a shift of up to x turns.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, image: Image, random: Randomness) -> Image:
        changes: list[tuple[Callable[[Image, float], Image], float, float]] = [
            (brightened, max(0.0, 1 - self.brightness), 1 + self.brightness),
            (contrasted, max(0.0, 1 - self.contrast), 1 + self.contrast),
            (saturated, max(0.0, 1 - self.saturation), 1 + self.saturation),
            (hue_shifted, -self.hue, self.hue),
        ]
        while changes:
            change, low, high = changes.pop(random.below(len(changes)))
            # Drawn in any case, so that one field does not change what the others do.
            amount = random.uniform(low, high)
            if low != high:
                image = change(image, amount)
        return image
