"""Weights by rule: the same numbers for the same names wherever they are asked for."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def made_up(name: str, shape: Sequence[int]) -> Tensor:
    """Values for the tensor ``name``, of a size that leaves a net's activations in bounds."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = random.standard_normal(shape, np.float32)
        values /= math.sqrt(math.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        values = random.random(shape, np.float32) * 0.4 + 0.8
    elif name.endswith("gamma"):
        values = random.random(shape, np.float32) * 0.2 + 0.1
    else:
        values = random.random(shape, np.float32) * 0.2 - 0.1
    return torch.from_numpy(values)


def made_up_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {name: made_up(name, shape) for name, shape in shapes.items()}


def made_up_image(shape: Sequence[int]) -> Tensor:
    """One image of ``shape`` (C, H, W) with values about as large as normalised ones."""
    return made_up("image", (1, *shape)) * math.sqrt(math.prod(shape))
