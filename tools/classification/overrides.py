"""Flags that say how images are prepared, in place of what the net or its weights say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...proto.errors import ConfigError
from ..flags import at_least, comma_list, one_of

if TYPE_CHECKING:
    import numpy as np

    from ...proto.caffe_pb2 import LayerParameter, Preprocessing


def configure(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "preprocessing (by default the model's own; a flag wins over it)"
    )
    group.add_argument(
        "--resize", default="", help="shorter side, or HEIGHTxWIDTH, before the crop"
    )
    group.add_argument("--crop", type=at_least(1), help="side of the square that is cut out")
    group.add_argument("--mean", default="", help="mean file, or a value a channel: 104,117,123")
    group.add_argument(
        "--scale", default="", help="what the rest is times: a value, or one a channel"
    )
    group.add_argument("--channel_order", type=one_of("bgr", "rgb", "gray"), help="of the input")


@dataclass(frozen=True, slots=True, eq=False)
class Overrides:
    """What flags say of the preprocessing; what is empty or None is not said.

    ``resize`` is the shorter side alone or height and width; ``mean`` one value, one a channel, or
    an image (channels, height, width).
    """

    resize: tuple[int, ...] = ()
    crop: int | None = None
    mean: np.ndarray | None = None
    scale: tuple[float, ...] = ()
    channel_order: str = ""

    @classmethod
    def from_flags(cls, args: argparse.Namespace) -> Overrides:
        """Read the flags of :func:`configure`; ConfigError for values that cannot be meant."""
        return cls(
            resize=_sizes(args.resize),
            crop=args.crop,
            mean=_mean(args.mean),
            scale=_numbers(args.scale, "--scale must be numbers"),
            channel_order=(args.channel_order or "").upper(),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said."""
        return not (
            self.resize or self.crop or self.scale or self.channel_order or self.mean is not None
        )

    def silence(self, layer: LayerParameter) -> None:
        """Take out of a data layer's ``transform_param`` a mean file that is replaced and is not
        there."""
        if self.mean is None or not layer.HasField("transform_param"):
            return
        if not Path(layer.transform_param.mean_file).is_file():
            layer.transform_param.ClearField("mean_file")

    def apply(self, record: Preprocessing, shape: Sequence[int] = ()) -> Preprocessing:
        """A copy of ``record`` that says what the flags say.

        Where images are resized and nothing is said of a crop, the centre of the size of the input,
        ``shape`` (channels, height, width), is cut out.
        """
        from ...proto.caffe_pb2 import Preprocessing

        found = Preprocessing()
        found.CopyFrom(record)
        if self.resize:
            for field in ("image_height", "image_width", "resize_side"):
                found.ClearField(field)
            found.resize_height, found.resize_width = 0, 0
            if len(self.resize) == 1:
                found.resize_side = self.resize[0]
            else:
                found.resize_height, found.resize_width = self.resize
            self._fit(found, shape)
        if self.crop is not None:
            found.crop_size = found.height = found.width = self.crop
        if self.mean is not None:
            _set_mean(found, self.mean)
        if self.scale:
            del found.scale_value[:]
            found.scale = self.scale[0]
            if len(self.scale) > 1:
                found.scale_value.extend(self.scale)
        if self.channel_order:
            found.channel_order = self.channel_order
        return found

    def _fit(self, record: Preprocessing, shape: Sequence[int]) -> None:
        """Say what becomes of a resized image where nothing was said of a crop."""
        if record.crop_size or self.crop is not None:
            return
        if shape and shape[1] == shape[2]:
            record.crop_size, (record.height, record.width) = shape[1], shape[1:]
        elif len(self.resize) == 2:
            record.height, record.width = self.resize


def _set_mean(record: Preprocessing, mean: np.ndarray) -> None:
    record.ClearField("mean_image")
    del record.mean_value[:]
    if mean.ndim == 3:
        record.mean_image.shape.dim.extend(mean.shape)
        record.mean_image.data.extend(mean.ravel().tolist())
    else:
        record.mean_value.extend(mean.tolist())


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x") if text else []
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--resize must be a size or HEIGHTxWIDTH, got {text!r}")
    return tuple(map(int, parts))


def _mean(text: str) -> np.ndarray | None:
    import numpy as np

    from ..images import read_mean

    if Path(text).is_file():
        return read_mean(text)
    numbers = _numbers(text, "--mean must be a mean file that is there or numbers")
    return np.array(numbers, np.float32) if numbers else None


def _numbers(text: str, must: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in comma_list(text))
    except ValueError:
        raise ConfigError(f"{must} with commas between, got {text!r}") from None
