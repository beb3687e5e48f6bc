"""What classify and detect have in common: flags of a net for images, mean files, images.

What a flag does not say is as the weights recorded it in training; where they recorded nothing, as
Caffe's do, it is as for CaffeNet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..proto.errors import ConfigError, CortadoError, DataError
from .flags import comma_list, switch

if TYPE_CHECKING:
    import numpy as np

    from ..proto.caffe_pb2 import Preprocessing
    from .classification.overrides import Overrides

#: Where Caffe's own tools look, seen from its folder.
MODEL = "models/bvlc_reference_caffenet/"
MEAN = "python/caffe/imagenet/ilsvrc_2012_mean.npy"

RAW_SCALE, SWAP = 255.0, "2,1,0"
SWAPS = {SWAP: "BGR", "0,1,2": "RGB", "": "RGB"}

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
        help=".npy or .binaryproto of (channels, height, width); '' for none (default: as "
        f"recorded, else {MEAN})",
    )
    parser.add_argument("--input_scale", type=float, help="multiplies the prepared values")
    parser.add_argument(
        "--raw_scale",
        type=float,
        help=f"multiplies pixels of 0 to 1 (default {RAW_SCALE:g})",
    )
    parser.add_argument(
        "--channel_swap",
        help=f"order of channels; {SWAP} makes BGR (default: as recorded, else {SWAP})",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The values with which Caffe's Transformer prepares images; ``mean`` (channels, height, width)
    or a value a channel."""

    mean: np.ndarray | None
    input_scale: Any
    raw_scale: float
    channel_swap: list[int] | None


def values_of(args: argparse.Namespace, record: Preprocessing | None = None) -> Values:
    """What the flags say, else what ``record`` says, else CaffeNet's values."""
    import numpy as np

    from ..proto.preprocessing import mean_of, scale_of

    raw = RAW_SCALE if args.raw_scale is None else args.raw_scale
    swap, input_scale = args.channel_swap, args.input_scale
    mean = None
    if args.mean_file is not None:
        mean = read_mean(args.mean_file)
    elif record is None:
        mean = read_mean(MEAN)
    else:
        mean = np.asarray(mean_of(record) * (raw / RAW_SCALE), np.float32)
    if record is not None:
        if input_scale is None:
            input_scale = (scale_of(record) * (RAW_SCALE / raw)).reshape(-1, 1, 1)
        if swap is None:
            swap = {"BGR": SWAP, "RGB": "0,1,2"}.get(record.channel_order, "")
    order = whole_numbers(SWAP if swap is None else swap, "channel_swap")
    return Values(mean, input_scale, raw, order or None)


def record_of(args: argparse.Namespace) -> Preprocessing | None:
    """How images become the net's input, as its weights recorded or its Input layer says."""
    from ..layers.base import TEST, Context
    from ..layers.data.input import Input
    from ..netdef.weights import recorded
    from ..proto.files import read_net

    records = {each.blob: each for each in recorded(args.pretrained_model)}
    for layer in read_net(args.model_def).message.layer:
        if layer.bottom or not layer.top:
            continue
        if layer.top[0] in records:
            return records[layer.top[0]]
        if layer.type == "Input":
            source = Input.from_message(layer, Context(num_tops=len(layer.top), phase=TEST))
            if (note := source.preprocessing(layer.top[0])) is not None:
                return note
    return None


def overrides_of(args: argparse.Namespace, size: Sequence[int], record: Preprocessing) -> Overrides:
    """What the flags that were given say in place of ``record``, whose pixels are from 0 to 255.

    ``size`` (height, width) is that of images before they are cropped, or empty. ConfigError for an
    order of channels that no record has.
    """
    import numpy as np

    from .classification.overrides import Overrides

    unit = RAW_SCALE / (RAW_SCALE if args.raw_scale is None else args.raw_scale)
    mean = None
    if args.mean_file is not None:
        given = read_mean(args.mean_file)
        mean = np.zeros(1) if given is None else given * unit
    scale: tuple[float, ...] = ()
    if args.input_scale is not None or unit != 1:
        scale = ((1.0 if args.input_scale is None else args.input_scale) / unit,)
    order = ""
    if args.channel_swap is not None and record.channels == 3:
        swap = args.channel_swap.replace(" ", "")
        if swap not in SWAPS:
            raise ConfigError(
                f"--channel_swap must be {SWAP} (BGR) or 0,1,2 (RGB) for weights that record their "
                f"preprocessing, got {args.channel_swap!r}"
            )
        order = SWAPS[swap]
    return Overrides(resize=tuple(size), mean=mean, scale=scale, channel_order=order)


def check_files(args: argparse.Namespace) -> None:
    """ConfigError if the net or its weights are not there."""
    for flag in ("model_def", "pretrained_model"):
        path = getattr(args, flag)
        if not Path(path).is_file():
            raise ConfigError(f"--{flag}: there is no file {path!r}")


def whole_numbers(text: str, flag: str) -> list[int]:
    try:
        return [int(part) for part in comma_list(text)]
    except ValueError:
        raise ConfigError(f"--{flag} must be a comma list of whole numbers, got {text!r}") from None


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
    """Choose the device and build the net with ``make``."""
    from . import device
    from .pycaffe import mode

    if args.gpu:
        device.ids("0")
        mode.set_mode_gpu()
    else:
        mode.set_mode_cpu()
    print(f"{'GPU' if args.gpu else 'CPU'} mode")
    with plain_errors():
        return make()
