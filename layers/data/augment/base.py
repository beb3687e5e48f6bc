"""What augmentations are made of: an image of bytes, and the random numbers of one sample."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..counter_random import scrambled

#: Bytes, (height, width, channels); colours are BGR. OpenCV's types do not tell the element type.
Image = NDArray[Any]

_STEP = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


class Randomness:
    """Random numbers one after another, all of them a function of the word that they start from.

    The generator is SplitMix64, as in :mod:`..counter_random`. Each sample has its own, so that
    neither threads nor the samples before it matter.
    """

    def __init__(self, start: int) -> None:
        self._state = start

    def word(self) -> int:
        """64 random bits."""
        self._state = (self._state + _STEP) & _MASK
        return scrambled(self._state)

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return (self.word() * bound) >> 64

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.uniform(0.0, 1.0) < probability


class Operation(Protocol):
    """One change of an image. It must not write into the image that it is given."""

    def __call__(self, image: Image, random: Randomness) -> Image:
        """The changed image; all that is random comes from ``random``."""
        ...


def with_channels(image: Image) -> Image:
    """``image`` with the axis of one channel that OpenCV drops."""
    return image if image.ndim == 3 else image[:, :, np.newaxis]


def resized(image: Image, height: int, width: int) -> Image:
    """``image`` in another size, bilinear as Caffe resizes."""
    return with_channels(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
