"""Classify an image, the images of a folder or an array of images, and save the probabilities.

INPUT is an image, a folder (its files ending in --ext are taken in the order of their names) or a
.npy array of (height, width, channels) images from 0 to 1, RGB. OUTPUT.npy gets one row an image:
the mean over ten crops, or with --center_only of the centre.

Images are prepared as those that the weights were trained on, if the weights recorded that; a
flag wins over the record, and the log says where they differ. Caffe's weights record nothing: then
images are brought to --images_dim, cropped to the net's input, their channels reordered, multiplied
by --raw_scale, the mean taken off, and multiplied by --input_scale, by default as for CaffeNet.

example:
  cortado classify cat.jpg scores.npy --model_def deploy.prototxt --pretrained_model w.caffemodel
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError, ResourceError
from . import images
from .flags import switch

if TYPE_CHECKING:
    import numpy as np

    from .classification.overrides import Overrides

#: Size of images before they are cropped, for CaffeNet.
IMAGES_DIM = "256,256"


def configure(parser: argparse.ArgumentParser) -> None:
    images.configure_model(parser)
    switch(parser, "center_only", "predict from the centre alone")
    parser.add_argument(
        "--images_dim",
        help="height,width of images before they are cropped (default: as recorded, else "
        f"{IMAGES_DIM})",
    )
    parser.add_argument("--ext", default="jpg", help="ending of the images in a folder")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    size = _size(args.images_dim)
    images.check_files(args)
    record = images.record_of(args)
    files, arrays = _inputs(Path(args.input_file).expanduser(), args.ext)
    if record is None:
        predictions = _as_caffe(args, size, files, arrays)
    else:
        overrides = images.overrides_of(args, size, record)
        predictions = _as_trained(args, overrides, files, arrays)
    print(f"Saving results into {args.output_file}")
    try:
        np.save(args.output_file, predictions)
    except OSError as error:
        raise ResourceError(f"{args.output_file}: {error.strerror}") from None
    return 0


def _size(text: str | None) -> list[int]:
    """Height and width of --images_dim; nothing if it is not given."""
    if text is None:
        return []
    size = images.whole_numbers(text, "images_dim")
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"--images_dim must be height,width, got {text!r}")
    return size


def _as_trained(
    args: argparse.Namespace, overrides: Overrides, files: list[str], arrays: list[np.ndarray]
) -> np.ndarray:
    """Prepared through the transform of the data layers, as the record and the flags say."""
    import numpy as np

    from ..layers.data.preprocessing import BGR, RGB, Views
    from ..proto.preprocessing import summary
    from . import device
    from .classification.model import BATCH, open_model

    views = Views(1 if args.center_only else 10)
    count = len(files) + len(arrays)
    model = open_model(
        args.model_def,
        args.pretrained_model,
        overrides=overrides,
        batch=min(BATCH, count * views.count),
        device=device.first("0" if args.gpu else ""),
    )
    print(f"Images are prepared as recorded: {summary(model.preprocessing.to_message())}")
    # Pixels of bytes, as in files and databases.
    pixels = [np.round(array * 255).clip(0, 255).astype(np.uint8) for array in arrays]
    with _timed(count):
        found = model.classify(pixels or files, views, RGB if arrays else BGR)
    return found.numpy()


def _as_caffe(
    args: argparse.Namespace, size: list[int], files: list[str], arrays: list[np.ndarray]
) -> np.ndarray:
    """Prepared as Caffe's tool does."""
    from .pycaffe.classifier import Classifier

    values = images.values_of(args)
    classifier = images.build(
        args,
        lambda: Classifier(
            args.model_def,
            args.pretrained_model,
            image_dims=size or images.whole_numbers(IMAGES_DIM, "images_dim"),
            mean=values.mean,
            input_scale=values.input_scale,
            raw_scale=values.raw_scale,
            channel_swap=values.channel_swap,
        ),
    )
    inputs = arrays or [images.read_image(file) for file in files]
    with _timed(len(inputs)), images.plain_errors():
        return classifier.predict(inputs, oversample=not args.center_only)


@contextlib.contextmanager
def _timed(count: int) -> Iterator[None]:
    print(f"Classifying {count} inputs.")
    began = time.monotonic()
    yield
    print(f"Done in {time.monotonic() - began:.2f} s.")


def _inputs(path: Path, ending: str) -> tuple[list[str], list[np.ndarray]]:
    """Image files, or the images of an array."""
    if path.is_dir():
        print(f"Loading folder: {path}")
        found = sorted(path.glob(f"*.{ending}"))
        if not found:
            raise DataError(f"{path}: there is no file ending in .{ending} in it (see --ext)")
        return [str(each) for each in found], []
    print(f"Loading file: {path}")
    if path.suffix == ".npy":
        array = images.read_array(str(path))
        if array.ndim != 4:
            raise DataError(
                f"{path}: must hold images (number, height, width, channels), "
                f"got the shape {array.shape}"
            )
        return [], list(array)
    return [str(path)], []
