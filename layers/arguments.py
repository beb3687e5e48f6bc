"""From the fields of a message to the arguments of a constructor, by their names."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, TypeVar

from google.protobuf.message import Message

from ..proto import caffe_pb2
from . import fillers, own

T = TypeVar("T")


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


def construct(cls: type[T], message: caffe_pb2.LayerParameter, context: object) -> T:
    """A ``cls`` whose arguments are the fields of these names in the layer's own message.

    Where the schema has no such message, they are those of the block called after the layer's
    type. An argument ``context`` is the context.
    """
    given: dict[str, Any] = {"context": context}
    field = getattr(cls, "message_field", "")
    if field:
        given.update(arguments(getattr(message, field), field))
    given.update(own.arguments(cls, message))
    return cls(**matching(cls, given))


@cache
def accepted(constructor: type) -> frozenset[str]:
    """The names of the arguments that ``constructor`` takes."""
    return frozenset(inspect.signature(constructor).parameters)


def matching(constructor: type, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments ``given`` that ``constructor`` takes."""
    names = accepted(constructor)
    return {name: value for name, value in given.items() if name in names}
