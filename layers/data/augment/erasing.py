"""Random erasing: a rectangle of noise over what the net sees (Zhong et al., 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .base import Image, Randomness

_ATTEMPTS = 10
#: Limits of height divided by width, as in the paper.
_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True, slots=True)
class Erasing:
    """With ``probability`` fills a rectangle of a share of the area within ``area`` with noise."""

    probability: float
    area: tuple[float, float]

    def __call__(
        self, image: Image, region: tuple[int, int, int, int], random: Randomness
    ) -> Image:
        """``image`` with a rectangle in ``region`` (top, left, height, width) erased."""
        if not random.chance(self.probability):
            return image
        top, left, height, width = region
        for _ in range(_ATTEMPTS):
            area = height * width * random.uniform(*self.area)
            ratio = math.exp(random.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows <= height and 0 < columns <= width:
                row = top + random.below(height - rows + 1)
                column = left + random.below(width - columns + 1)
                changed = image.copy()
                shape = (rows, columns, image.shape[2])
                changed[row : row + rows, column : column + columns] = _noise(shape, random)
                return changed
        return image


def _noise(shape: tuple[int, int, int], random: Randomness) -> Image:
    count = math.prod(shape)
    generator = np.random.Philox(key=random.word())
    return generator.random_raw(-(-count // 8)).view(np.uint8)[:count].reshape(shape)
