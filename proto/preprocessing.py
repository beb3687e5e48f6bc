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
