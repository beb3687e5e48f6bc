"""Mixup and cutmix: pairs of a batch mixed with their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..counter_random import Purpose, permutation, word
from .base import Randomness


@dataclass(frozen=True, slots=True)
class Mixing:
    """Mixup (Zhang et al., 2017) and cutmix (Yun et al., 2019) of whole batches.

    A share is drawn from Beta(alpha, alpha) for each batch. Mixup adds the images in these shares,
    cutmix takes a rectangle of that area from the partner; labels are vectors and are added in the
    same shares. Where both alphas are positive each batch takes one of the two, evenly.
    """

    mixup_alpha: float
    cutmix_alpha: float

    def __call__(
        self, images: Tensor, labels: Tensor, seed: int, epoch: int, index: int
    ) -> tuple[Tensor, Tensor]:
        """The mixed batch; ``epoch`` and ``index`` are those of its first sample."""
        start = word(seed, Purpose.MIX, epoch, index)
        random = Randomness(start)
        cuts = self.cutmix_alpha > 0 and (self.mixup_alpha == 0 or random.chance(0.5))
        alpha = self.cutmix_alpha if cuts else self.mixup_alpha
        share = float(np.random.Generator(np.random.Philox(key=random.word())).beta(alpha, alpha))
        partners = torch.from_numpy(permutation(len(images), start)).to(images.device)
        if cuts:
            rows, columns = _rectangle(images.shape[-2], images.shape[-1], share, random)
            mixed = images.clone()
            mixed[:, :, rows, columns] = images[partners, :, rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            share = 1 - area / (images.shape[-2] * images.shape[-1])
        else:
            mixed = torch.lerp(images[partners], images, share)
        return mixed, torch.lerp(labels[partners], labels, share)


def _rectangle(height: int, width: int, share: float, random: Randomness) -> tuple[slice, slice]:
    """Rows and columns of a rectangle of the share 1 - ``share``, cut off at the borders."""
    side = math.sqrt(1 - share)
    spans = []
    for size in (height, width):
        centre, half = random.below(size), round(size * side) // 2
        spans.append(slice(max(0, centre - half), min(size, centre + half)))
    return spans[0], spans[1]
