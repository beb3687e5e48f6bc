"""Measure augmentations by OpenCV, as layers/data/augment uses it, against torchvision's.

On one thread each, an image of 500x375 resized to 224x224 and then changed in that size; medians of
five runs. Usage: python scripts/bench_augment.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from cortado.layers.data.augment import colour, geometry, rand_augment
from cortado.layers.data.augment.base import resized

CALLS = 20


def milliseconds(call: Callable[[], object]) -> float:
    call()
    found = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append(1000 * (time.perf_counter() - started) / CALLS)
    return statistics.median(found)


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    large = cv2.GaussianBlur(noise, (9, 9), 3)
    image = resized(large, 224, 224)
    large_tensor, tensor = (torch.from_numpy(each).permute(2, 0, 1) for each in (large, image))
    tensor = tensor.contiguous()
    changes = {change.__name__.strip("_"): change for change, _ in rand_augment.OPERATIONS}
    bilinear = InterpolationMode.BILINEAR
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "resize": (
            lambda: resized(large, 224, 224),
            lambda: torchvision.resize(large_tensor, [224, 224], antialias=False),
        ),
        "rotate": (
            lambda: geometry.rotated(image, 13.0),
            lambda: torchvision.rotate(tensor, 13.0, interpolation=bilinear),
        ),
        "brightness": (
            lambda: colour.brightened(image, 1.2),
            lambda: torchvision.adjust_brightness(tensor, 1.2),
        ),
        "contrast": (
            lambda: colour.contrasted(image, 1.2),
            lambda: torchvision.adjust_contrast(tensor, 1.2),
        ),
        "saturation": (
            lambda: colour.saturated(image, 1.2),
            lambda: torchvision.adjust_saturation(tensor, 1.2),
        ),
        "hue": (
            lambda: colour.hue_shifted(image, 0.1),
            lambda: torchvision.adjust_hue(tensor, 0.1),
        ),
        "sharpness": (
            lambda: changes["sharpness"](image, 0.5),
            lambda: torchvision.adjust_sharpness(tensor, 1.45),
        ),
        "posterize": (
            lambda: changes["posterize"](image, 0.5),
            lambda: torchvision.posterize(tensor, 6),
        ),
        "equalize": (
            lambda: changes["equalize"](image, 0.0),
            lambda: torchvision.equalize(tensor),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        mine, other = milliseconds(ours), milliseconds(theirs)
        print(f"{name:12} {mine:.3f} ms, torchvision {other:.3f} ms, ratio {other / mine:.1f}")


if __name__ == "__main__":
    main()
