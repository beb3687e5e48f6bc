"""Blocks of layer types that the schema does not know: a user's own layers.

A layer of ``type: "Mish2"`` may hold one block that is called after its type, ``mish2_param { ...
}``. What stands in it is kept as written, in ``own_param``, and read when the layer is built
(:mod:`..layers.own`), as only the layer's class knows its fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from google.protobuf import text_encoding, text_format
from google.protobuf.message import Message

from .caffe_pb2 import LayerParameter, OwnParameter, OwnValue
from .positions import Node
from .tree import Block, Field, Scalar, Value, integer

#: What a number of an OwnValue may be, as in int64.
_LARGEST = 2**63
_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SUFFIX = "_param"

Report = Callable[[int, str], None]


def block_name(layer_type: str) -> str:
    """How the block of a layer type is called: ``my_layer_param`` for ``MyLayer``."""
    return re.sub(r"\W", "_", _WORD_BREAK.sub("_", layer_type)).lower() + _SUFFIX


def is_own(message: Message, block: Block, field: Field) -> bool:
    """Whether the unknown ``field`` of a layer's ``block`` is called after the layer's type.

    Capitals and underscores do not matter: ``mylayer_param`` and ``my_layer_param`` are one.
    """
    if not isinstance(message, LayerParameter) or not field.name.endswith(_SUFFIX):
        return False
    types = [value for other in block.fields if other.name == "type" for value in other.values]
    return any(
        isinstance(value, Scalar)
        and _bare(str(value.content)) == _bare(field.name[: -len(_SUFFIX)])
        for value in types
    )


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def store(message: OwnParameter, field: Field, value: Value, node: Node, report: Report) -> None:
    """Keep the block ``value`` of ``field`` in ``message``, and the places of its fields."""
    message.name = field.name
    if not isinstance(value, Block):
        report(field.offset, f"{field.name!r} must be a block in braces, got {value}")
        return
    assert node.fields is not None
    for inner in value.fields:
        known = [each for each in message.field if each.name == inner.name]
        entry = known[0] if known else message.field.add(name=inner.name)
        for each in inner.values:
            place = Node(node.source, each.offset, {} if isinstance(each, Block) else None)
            node.fields.setdefault(inner.name, []).append(place)
            kept = entry.value.add()
            if isinstance(each, Block):
                store(kept.block, inner, each, place, report)
            elif isinstance(each, Scalar):
                _store_scalar(kept, inner, each, report)


def _store_scalar(kept: OwnValue, field: Field, value: Scalar, report: Report) -> None:
    content = value.content
    sign = "-" if value.negative else ""
    if not isinstance(content, str):
        report(value.offset, f"{field.name!r} must be of valid UTF-8")
    elif value.kind == "string":
        kept.text = content
    elif value.kind == "name":
        kept.word = sign + content
    elif value.kind == "integer" and -_LARGEST <= (number := integer(value)) < _LARGEST:
        kept.integer = number
    else:
        kept.number = float(sign + content.rstrip("fF"))


def print_layer(message: Message, indent: int, as_one_line: bool) -> str | None:
    """A formatter for protobuf's printer: a layer's own block as it was written.

    None, which leaves the printing to protobuf, for all messages that have none.
    """
    if not isinstance(message, LayerParameter) or not message.own_param:
        return None
    plain = LayerParameter()
    plain.CopyFrom(message)
    del plain.own_param[:]
    lines = text_format.MessageToString(plain, indent=indent, as_one_line=as_one_line).splitlines()
    for block in message.own_param:
        lines += _lines(block, indent)
    return (" " if as_one_line else "\n").join(lines) + ("" if as_one_line else "\n")


def _lines(block: OwnParameter, indent: int) -> list[str]:
    blank = " " * indent
    lines = [f"{blank}{block.name} {{"]
    for field in block.field:
        for value in field.value:
            if value.HasField("block"):
                lines += _lines(value.block, indent + 2)
            else:
                lines.append(f"{blank}  {field.name}: {written(value)}")
    return [*lines, f"{blank}}}"]


def written(value: OwnValue) -> str:
    """A value as it is written in prototxt."""
    if value.HasField("text"):
        escaped = text_encoding.CEscape(value.text.encode("utf-8"), as_utf8=True)
        return f'"{escaped}"'
    if value.HasField("word"):
        return value.word
    if value.HasField("block"):
        return "a block"
    return str(value.integer) if value.HasField("integer") else repr(value.number)
