"""Windows of an image that may hold an object."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import cv2
import numpy as np

logger = logging.getLogger(__name__)

#: No more than this many windows of one image are scored.
LIMIT = 2000
_SCALES = (0.25, 0.4, 0.6, 0.9)
_ASPECTS = (0.5, 1.0, 2.0)
_STEP = 0.5
_SMALLEST = 8


def propose(image: np.ndarray) -> np.ndarray:
    """Windows (ymin, xmin, ymax, xmax) of an (H, W, 3) image from 0 to 1, RGB, at most LIMIT.

    By Selective Search (Uijlings et al. 2013) if OpenCV has its contrib modules; otherwise a grid
    of windows of several sizes and shapes, and the bounds of maximally stable regions.
    """
    pixels = np.ascontiguousarray((image[:, :, ::-1] * 255).round().astype(np.uint8))
    contrib = getattr(cv2, "ximgproc", None)
    if contrib is not None:
        search = contrib.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(pixels)
        search.switchToSelectiveSearchFast()
        boxes = [(y, x, y + height, x + width) for x, y, width, height in search.process()]
    else:
        logger.warning(
            "this OpenCV has no Selective Search (opencv-contrib has): windows are a grid of "
            "several sizes and the bounds of stable regions"
        )
        boxes = [*_stable(pixels), *_grid(*pixels.shape[:2])]
    return np.array(list(dict.fromkeys(boxes))[:LIMIT], np.float64)


def _grid(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    side = min(height, width)
    for scale in _SCALES:
        for aspect in _ASPECTS:
            rows = min(height, max(1, round(side * scale / aspect**0.5)))
            columns = min(width, max(1, round(side * scale * aspect**0.5)))
            for y in _starts(height, rows):
                for x in _starts(width, columns):
                    yield y, x, y + rows, x + columns


def _starts(length: int, part: int) -> list[int]:
    """Where windows of ``part`` begin so that they cover ``length`` evenly."""
    count = 1 + int(np.ceil((length - part) / (part * _STEP)))
    return np.linspace(0, length - part, count).round().astype(int).tolist()


def _stable(pixels: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    if min(pixels.shape[:2]) < _SMALLEST:
        return
    _, boxes = cv2.MSER.create().detectRegions(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    for x, y, width, height in np.asarray(boxes).reshape(-1, 4).tolist():
        if min(width, height) >= _SMALLEST:
            yield y, x, y + height, x + width
