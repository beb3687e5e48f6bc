"""From the fields of a message to the arguments of a constructor, by their names."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from google.protobuf.message import Message

from ..proto import caffe_pb2
from . import fillers


def arguments(param: Message, path: str) -> dict[str, Any]:
    """The fields of ``param``, whose place in the LayerParameter is ``path``, by name.

    A field that is not given has its default; where it has none, it is left out, so that the
    constructor's own default holds. Repeated fields become tuples, fillers what fills. Raises
    LayerError for a filler that cannot work.
    """
    found: dict[str, Any] = {}
    for field in param.DESCRIPTOR.fields:
        value = getattr(param, field.name)
        if field.is_repeated:
            found[field.name] = tuple(value)
        elif isinstance(value, caffe_pb2.FillerParameter):
            if param.HasField(field.name):
                found[field.name] = fillers.from_message(value, f"{path}.{field.name}")
        elif param.HasField(field.name) or field.has_default_value:
            found[field.name] = value
    return found


@cache
def accepted(constructor: type) -> frozenset[str]:
    """The names of the arguments that ``constructor`` takes."""
    return frozenset(inspect.signature(constructor).parameters)


def matching(constructor: type, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments ``given`` that ``constructor`` takes."""
    names = accepted(constructor)
    return {name: value for name, value in given.items() if name in names}
