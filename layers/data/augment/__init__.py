"""Resizing and random changes of images, beyond Caffe's transform_param.

OpenCV does the work: on one core most operations were several times as fast as those of
torchvision.transforms.v2 (docs/benchmarks.md), and it takes images as they are decoded.
"""

from .preparation import Preparation

__all__ = ["Preparation"]
