"""Resizing images by interpolation, without smoothing, as scikit-image and SciPy do it.

A resized image is Ry @ image @ Rx^T with one small matrix an axis: exact weights, and as quick as
the matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def resize_image(im: np.ndarray, new_dims: Sequence[int], interp_order: int = 1) -> np.ndarray:
    """An (H, W, K) image in another size (height, width), as float32.

    ``interp_order`` is 0 for the nearest pixel or 1 for linear; ValueError for others. Images of 1
    or 3 channels are taken as cells whose centres are interpolated, with black (their own minimum)
    around; others as points whose corners stay where they are.
    """
    if interp_order not in (0, 1):
        raise ValueError(f"interp_order must be 0 or 1, got {interp_order}")
    height, width = (int(size) for size in new_dims)
    image = np.asarray(im, np.float32)
    low, high = image.min(), image.max()
    if low == high:
        return np.full((height, width, image.shape[-1]), low, np.float32)
    cells = image.shape[-1] in (1, 3)
    rows = _weights(image.shape[0], height, interp_order, cells)
    columns = _weights(image.shape[1], width, interp_order, cells)
    result = np.einsum("yh,hwk->ywk", rows, image - low, optimize=True)
    result = np.einsum("xw,ywk->yxk", columns, result, optimize=True)
    return np.asarray(result + low, np.float32)


def _weights(old: int, new: int, order: int, cells: bool) -> np.ndarray:
    """The (new, old) matrix that interpolates along one axis."""
    steps = np.arange(new, dtype=np.float64)
    if cells:
        places = (steps + 0.5) * old / new - 0.5
    else:
        places = steps * ((old - 1) / (new - 1) if new > 1 else 0.0)
    weights = np.zeros((new, old))
    lower = np.floor(places).astype(int)
    fraction = places - lower
    if order == 0:
        nearest = np.clip(np.floor(places + 0.5).astype(int), 0, old - 1)
        weights[np.arange(new), nearest] = 1
        return weights.astype(np.float32)
    for index, share in ((lower, 1 - fraction), (lower + 1, fraction)):
        inside = (index >= 0) & (index < old)
        weights[np.arange(new)[inside], index[inside]] += share[inside]
    return weights.astype(np.float32)
