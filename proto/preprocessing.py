"""How images were prepared, as text: for files of weights whose form is not Caffe's."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf import json_format

from .caffe_pb2 import Preprocessing
from .errors import SnapshotError

#: The name under which state dicts carry the text.
KEY = "cortado.preprocessing"
_MEAN = "mean_image"


def to_json(records: Iterable[Preprocessing]) -> str:
    """The records as a JSON list; a mean image is its shape and its float32 values in base64."""
    return json.dumps([_plain(record) for record in records])


def from_json(text: str, path: object) -> list[Preprocessing]:
    """What :func:`to_json` wrote; SnapshotError naming ``path`` for anything else."""
    try:
        return [_record(each) for each in json.loads(text)]
    except (json_format.ParseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotError(f"{path}: its {KEY} cannot be read: {error}") from None


def _plain(record: Preprocessing) -> dict[str, Any]:
    head = Preprocessing()
    head.CopyFrom(record)
    head.ClearField(_MEAN)
    plain: dict[str, Any] = json_format.MessageToDict(head, preserving_proto_field_name=True)
    if record.HasField(_MEAN):
        values = np.array(record.mean_image.data, "<f4")
        plain[_MEAN] = {
            "shape": list(record.mean_image.shape.dim),
            "float32": base64.b64encode(values.tobytes()).decode("ascii"),
        }
    return plain


def _record(plain: dict[str, Any]) -> Preprocessing:
    mean = plain.pop(_MEAN, None)
    record = json_format.ParseDict(plain, Preprocessing())
    if mean is not None:
        try:
            content = base64.b64decode(mean["float32"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"mean_image: {error}") from None
        record.mean_image.shape.dim.extend(mean["shape"])
        record.mean_image.data.extend(np.frombuffer(content, "<f4").tolist())
    return record


def summary(record: Preprocessing) -> str:
    """What a record says, in one line: 3x224x224 RGB, shorter side 256, crop 224, mean ..."""
    shape = f"{record.channels}x{record.height}x{record.width}"
    parts = [f"{shape} {record.channel_order}".strip()]
    if resize := _resize(record):
        parts.append(f"resized to {_text(resize)}")
    elif record.image_height:
        parts.append(f"of images of {record.image_height}x{record.image_width}")
    if record.crop_size:
        parts.append(f"crop {record.crop_size}")
    return ", ".join([*parts, f"mean {_text(mean_of(record))}", f"scale {_text(scale_of(record))}"])


def contradictions(first: Preprocessing, second: Preprocessing) -> list[tuple[str, str, str]]:
    """Where two records differ in what both state: what, and what the first and second say of it.

    Sizes that only one of them states are no contradiction.
    """
    pairs: list[tuple[str, Any, Any]] = [
        ("channel order", first.channel_order, second.channel_order),
        ("input", _shape(first), _shape(second)),
        ("resize", _resize(first), _resize(second)),
    ]
    found = [pair for pair in pairs if pair[1] and pair[2] and pair[1] != pair[2]]
    for what, of in (("mean", mean_of), ("scale", scale_of)):
        one, other = of(first), of(second)
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-5, atol=1e-6):
            found.append((what, one, other))
    return [(what, _text(one), _text(other)) for what, one, other in found]


def _shape(record: Preprocessing) -> tuple[int, ...]:
    return (record.channels, record.height, record.width) if record.channels else ()


def _resize(record: Preprocessing) -> tuple[int, ...]:
    """Height and width, the shorter side alone, or nothing."""
    if record.resize_side:
        return (record.resize_side,)
    return (record.resize_height, record.resize_width) if record.resize_height else ()


def mean_of(record: Preprocessing) -> np.ndarray:
    """What is subtracted: one value a channel, or an image (channels, height, width)."""
    if record.HasField(_MEAN):
        return np.array(record.mean_image.data, np.float32).reshape(record.mean_image.shape.dim)
    return _each_channel(record, record.mean_value or [0.0])


def scale_of(record: Preprocessing) -> np.ndarray:
    """What the rest is multiplied by, one value a channel."""
    return _each_channel(record, record.scale_value or [record.scale])


def _each_channel(record: Preprocessing, values: Iterable[float]) -> np.ndarray:
    found = np.array(list(values), np.float32)
    return np.repeat(found, record.channels) if len(found) == 1 and record.channels else found


def _text(value: str | tuple[int, ...] | np.ndarray) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return f"{value[0]} (shorter side)" if len(value) == 1 else "x".join(map(str, value))
    if value.ndim == 3:
        size = "x".join(map(str, value.shape))
        return f"an image of {size} (mean {value.mean():.4g})"
    different = list(dict.fromkeys(value.tolist()))
    return ", ".join(f"{each:.6g}" for each in (different if len(different) == 1 else value))
