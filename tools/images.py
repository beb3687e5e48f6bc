"""What classify and detect have in common: flags of a net for images, mean files, images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..proto.errors import ConfigError, CortadoError, DataError
from .flags import comma_list, switch

if TYPE_CHECKING:
    import numpy as np

#: Where Caffe's own tools look, seen from its folder.
MODEL = "models/bvlc_reference_caffenet/"
MEAN = "python/caffe/imagenet/ilsvrc_2012_mean.npy"

T = TypeVar("T")


def configure_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input_file", metavar="INPUT")
    parser.add_argument("output_file", metavar="OUTPUT")
    parser.add_argument("--model_def", default=f"{MODEL}deploy.prototxt", help="net prototxt")
    parser.add_argument(
        "--pretrained_model",
        default=f"{MODEL}bvlc_reference_caffenet.caffemodel",
        help="its weights",
    )
    switch(parser, "gpu", "run on the GPU")
    parser.add_argument(
        "--mean_file",
        default=MEAN,
        help=f".npy or .binaryproto of (channels, height, width); '' for none (default {MEAN})",
    )
    parser.add_argument("--input_scale", type=float, help="multiplies the prepared values")
    parser.add_argument(
        "--raw_scale", type=float, default=255.0, help="multiplies pixels of 0 to 1 (default 255)"
    )
    parser.add_argument(
        "--channel_swap", default="2,1,0", help="order of channels; 2,1,0 (default) makes BGR"
    )


def whole_numbers(text: str, flag: str) -> list[int]:
    try:
        return [int(part) for part in comma_list(text)]
    except ValueError:
        raise ConfigError(f"--{flag} must be a comma list of whole numbers, got {text!r}") from None


def channel_order(args: argparse.Namespace) -> list[int] | None:
    return whole_numbers(args.channel_swap, "channel_swap") or None


def read_mean(path: str) -> np.ndarray | None:
    """A mean file as (channels, height, width) or one value a channel; None for no path."""
    from ..layers.data.transform import read_mean as read_binary

    if not path:
        return None
    if not path.endswith(".npy"):
        return read_binary(path)
    return read_array(path)


def read_array(path: str) -> np.ndarray:
    """The array in a .npy file; DataError if it cannot be read."""
    import numpy as np

    try:
        return np.asarray(np.load(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {reason}") from None


def read_image(path: str) -> np.ndarray:
    """An image file as (height, width, 3) from 0 to 1, RGB; DataError if it cannot be read."""
    from .pycaffe.io import load_image

    try:
        return load_image(path)
    except (OSError, ValueError):
        raise DataError(f"{path}: is no image that can be read") from None


@contextmanager
def plain_errors() -> Iterator[None]:
    """Caffe's Python interface raises what scripts expect; here it is a wrong configuration."""
    try:
        yield
    except CortadoError:
        raise
    except Exception as error:
        if type(error) not in (Exception, RuntimeError, ValueError):
            raise
        if isinstance(error.__cause__, CortadoError):
            raise error.__cause__ from None
        raise ConfigError(str(error)) from None


def build(args: argparse.Namespace, make: Callable[[], T]) -> T:
    """Choose the device, check the files and build the net with ``make``."""
    from . import device
    from .pycaffe import mode

    for flag in ("model_def", "pretrained_model"):
        path = getattr(args, flag)
        if not Path(path).is_file():
            raise ConfigError(f"--{flag}: there is no file {path!r}")
    if args.gpu:
        device.ids("0")
        mode.set_mode_gpu()
    else:
        mode.set_mode_cpu()
    print(f"{'GPU' if args.gpu else 'CPU'} mode")
    with plain_errors():
        return make()
