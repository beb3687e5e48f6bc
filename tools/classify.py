"""Classify an image, the images of a folder or an array of images, and save the probabilities.

INPUT is an image, a folder (its files ending in --ext are taken in the order of their names) or a
.npy array of (height, width, channels) images from 0 to 1, RGB. OUTPUT.npy gets one row an image:
the mean over ten crops, or with --center_only of the centre. Images are brought to --images_dim,
cropped to the net's input, their channels reordered, multiplied by --raw_scale, the mean taken off,
and multiplied by --input_scale. The defaults are those of CaffeNet, seen from Caffe's folder.

example:
  cortado classify cat.jpg scores.npy --model_def deploy.prototxt --pretrained_model w.caffemodel
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError, ResourceError
from . import images
from .flags import switch

if TYPE_CHECKING:
    import numpy as np


def configure(parser: argparse.ArgumentParser) -> None:
    images.configure_model(parser)
    switch(parser, "center_only", "predict from the centre alone")
    parser.add_argument(
        "--images_dim", default="256,256", help="height,width of images before they are cropped"
    )
    parser.add_argument("--ext", default="jpg", help="ending of the images in a folder")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from .pycaffe.classifier import Classifier

    size = images.whole_numbers(args.images_dim, "images_dim")
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"--images_dim must be height,width, got {args.images_dim!r}")
    mean = images.read_mean(args.mean_file)
    classifier = images.build(
        args,
        lambda: Classifier(
            args.model_def,
            args.pretrained_model,
            image_dims=size,
            mean=mean,
            input_scale=args.input_scale,
            raw_scale=args.raw_scale,
            channel_swap=images.channel_order(args),
        ),
    )
    inputs = _inputs(Path(args.input_file).expanduser(), args.ext)
    print(f"Classifying {len(inputs)} inputs.")
    began = time.monotonic()
    with images.plain_errors():
        predictions = classifier.predict(inputs, oversample=not args.center_only)
    print(f"Done in {time.monotonic() - began:.2f} s.")
    print(f"Saving results into {args.output_file}")
    try:
        np.save(args.output_file, predictions)
    except OSError as error:
        raise ResourceError(f"{args.output_file}: {error.strerror}") from None
    return 0


def _inputs(path: Path, ending: str) -> list[np.ndarray]:
    if path.is_dir():
        print(f"Loading folder: {path}")
        found = sorted(path.glob(f"*.{ending}"))
        if not found:
            raise DataError(f"{path}: there is no file ending in .{ending} in it (see --ext)")
        return [images.read_image(str(each)) for each in found]
    print(f"Loading file: {path}")
    if path.suffix == ".npy":
        array = images.read_array(str(path))
        if array.ndim != 4:
            raise DataError(
                f"{path}: must hold images (number, height, width, channels), "
                f"got the shape {array.shape}"
            )
        return list(array)
    return [images.read_image(str(path))]
