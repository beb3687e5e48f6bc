"""Resizing and random changes of images, beyond Caffe's transform_param.

OpenCV does the work: on one core it was 2 to 120 times as fast as torchvision.transforms.v2 for
all operations but two (docs/benchmarks.md), and it takes images as they are decoded.
"""

from .preparation import Preparation

__all__ = ["Preparation"]
