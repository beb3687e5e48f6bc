"""Reading and writing messages as prototxt, with the place of every field.

The reader is our own because protobuf's stops at the first fault and forgets where things stood.
It accepts what Caffe's reader accepts (:mod:`.syntax` has the grammar) and builds the message in a
second step, :func:`build`, from the tree of fields.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from . import blocks, own
from .errors import ConfigError, Source, nearest
from .positions import Document, Node
from .syntax import Problem, read, refuse
from .tree import Block, Field, Scalar, Value, integer

M = TypeVar("M", bound=Message)

_FALSE = frozenset({"false", "False", "f"})
_TRUE = frozenset({"true", "True", "t"})
_INFINITE = frozenset({"inf", "infinity"})


def parse(
    text: str,
    message_class: type[M],
    name: str = "<text>",
    *,
    folder: Path | None = None,
    variables: Mapping[str, object] | None = None,
) -> Document[M]:
    """The message that ``text`` describes, with the place of each of its fields.

    ``name`` is what error messages call the text, usually its path. A text in the short form
    (:mod:`.blocks`) is expanded; it may include files from ``folder``, and ``variables`` are
    values for its variables; if they are Settings, the caller checks them. Raises ConfigError with
    every independent fault of the text: syntax, unknown fields, values of the wrong kind or out of
    range, singular fields given twice, required fields that are missing.
    """
    source = Source(name, text.removeprefix("\ufeff"))
    tree, problems = read(source)
    plain: Block = tree
    keywords = blocks.KEYWORDS - _schema(message_class.DESCRIPTOR).slots.keys()
    if tree.extended or variables or any(field.name in keywords for field in tree.fields):
        if problems:
            raise refuse(source, problems)
        settings = blocks.Settings(variables)
        plain, source = blocks.expand(tree, source, keywords, folder, settings)
        if not isinstance(variables, blocks.Settings):
            settings.check(name)
    document, more = build(plain, message_class, source)
    if problems or more:
        error = refuse(source, problems + more)
        error.partial = None if problems else document
        raise error
    return document


def to_text(message: Message) -> str:
    """``message`` as prototxt, one field a line, in the order of the field numbers.

    Blocks of layer types that the schema does not know come last in their layer, as they are
    written by hand; where that would not read as the same message, as the schema's own field.
    """
    plain = text_format.MessageToString(message)
    if "own_param {" not in plain:
        return plain
    text = text_format.MessageToString(message, message_formatter=own.print_layer)
    try:
        return text if parse(text, type(message)).message == message else plain
    except ConfigError:
        return plain


def build(tree: Block, message_class: type[M], source: Source) -> tuple[Document[M], list[Problem]]:
    """The message of a syntax tree, and what in the tree does not fit the message's schema."""
    builder = _Builder(source)
    message = message_class()
    root = Node(source, 0, {})
    builder.fill(message, tree, root, ())
    return Document(message, root), builder.problems


class _Slot:
    """How values of one field are checked and stored."""

    __slots__ = ("convert", "enum", "message", "name", "repeated", "wanted")

    def __init__(self, field: FieldDescriptor) -> None:
        self.name = field.name
        self.repeated = field.is_repeated
        self.message = field.message_type
        self.enum: EnumDescriptor | None = field.enum_type
        self.convert, self.wanted = _converter(field)


class _Schema:
    """What the reader needs to know of a message type."""

    __slots__ = ("name", "required", "slots")

    def __init__(self, descriptor: Descriptor) -> None:
        self.name = descriptor.name
        self.slots = {field.name: _Slot(field) for field in descriptor.fields}
        self.required = [field.name for field in descriptor.fields if field.is_required]


@functools.cache
def _schema(descriptor: Descriptor) -> _Schema:
    return _Schema(descriptor)


class _Builder:
    """Fills messages from blocks and collects what is wrong."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def report(self, offset: int, message: str, *related: tuple[str, int]) -> None:
        self.problems.append(Problem(offset, message, related))

    def fill(
        self, message: Message, block: Block, node: Node, around: tuple[_Schema, ...]
    ) -> list[Field]:
        """Store the fields of ``block``; ``around`` are the schemas of the enclosing blocks.

        Where a closing brace is missing, the fields that follow end up in the wrong block: the
        first that only an enclosing block knows ends this one, and the rest is returned.
        """
        schema = _schema(message.DESCRIPTOR)
        slots = schema.slots
        places = node.fields
        assert places is not None
        fields = block.fields
        index = 0
        while index < len(fields):
            field = fields[index]
            index += 1
            slot = slots.get(field.name)
            if slot is None and own.is_own(message, block, field):
                self._store_own(message, field, places)
                continue
            if slot is None:
                if not block.closed and any(field.name in other.slots for other in around):
                    return fields[index - 1 :]
                hint = nearest(field.name, slots)
                self.report(field.offset, f"{schema.name} has no field {field.name!r}{hint}")
                continue
            here = places.setdefault(field.name, [])
            if not slot.repeated and not self._is_single(field, here):
                continue
            for value in field.values:
                astray = self._store(message, slot, field, value, here, (*around, schema))
                if astray:
                    fields = fields[:index] + astray
        for name in schema.required:
            if name not in places and block.closed:
                self.report(block.offset, f"{schema.name} needs the field {name!r}")
        return []

    def _store_own(self, message: Message, field: Field, places: dict[str, list[Node]]) -> None:
        """Keep the block of a layer type that the schema does not know."""
        here = places.setdefault(field.name, [])
        if self._is_single(field, here):
            here.append(Node(self.source, field.offset, {}))
            kept = message.own_param.add()  # type: ignore[attr-defined]
            own.store(kept, field, field.values[0], here[0], self.report)

    def _is_single(self, field: Field, here: list[Node]) -> bool:
        if field.listed:
            self.report(field.offset, f"{field.name!r} takes one value, not a list")
            return False
        if here:
            first = ("it is first given here", here[0].offset)
            self.report(field.offset, f"{field.name!r} may be given only once", first)
            return False
        return True

    def _store(
        self,
        message: Message,
        slot: _Slot,
        field: Field,
        value: Value,
        here: list[Node],
        around: tuple[_Schema, ...],
    ) -> list[Field]:
        if isinstance(value, Block):
            if slot.message is None:
                self.report(field.offset, f"{slot.name!r} must be {slot.wanted}, got a block")
                return []
            node = Node(self.source, value.offset, {})
            here.append(node)
            inner = getattr(message, slot.name)
            if slot.repeated:
                inner = inner.add()
            else:
                inner.SetInParent()
            return self.fill(inner, value, node, around)
        assert isinstance(value, Scalar)  # lists and ranges are gone once a tree is expanded
        here.append(Node(self.source, value.offset))
        try:
            converted = slot.convert(value)
        except (ValueError, OverflowError):
            self.report(value.offset, self._mismatch(slot, value))
            return []
        if slot.repeated:
            getattr(message, slot.name).append(converted)
        else:
            setattr(message, slot.name, converted)
        return []

    def _mismatch(self, slot: _Slot, value: Scalar) -> str:
        hint = ""
        if slot.enum is not None and value.kind in ("name", "string"):
            hint = nearest(str(value.content), slot.enum.values_by_name)
        return f"{slot.name!r} must be {slot.wanted}, got {value}{hint}"


def _converter(field: FieldDescriptor) -> tuple[Callable[[Scalar], Any], str]:
    """The function from a scalar to a field's value (ValueError if unfit), and what it wants."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return _refuse_scalar, "a block in braces"
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _to_bytes, "a string in quotes"
        return _to_string, "a string in quotes (of valid UTF-8)"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _to_bool, "true or false"
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return _to_float, "a number"
    enum = field.enum_type
    if enum is not None:
        names = list(enum.values_by_name)
        wanted = _listing(names) if len(names) <= _MOST_NAMES else f"a name of {enum.name}"
        return functools.partial(_to_enum, enum), f"{wanted} (without quotes)"
    low, high = _INTEGER_RANGES[kind]
    return functools.partial(_to_integer, low, high), f"a whole number from {low} to {high}"


_INTEGER_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_MOST_NAMES = 12  # of an enum are listed in an error
_DECIMAL = re.compile(r"0|[1-9][0-9]*")


def _listing(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _refuse_scalar(value: Scalar) -> Any:
    raise ValueError(value)


def _to_string(value: Scalar) -> str:
    if value.kind != "string" or not isinstance(value.content, str):
        raise ValueError(value)
    value.content.encode("utf-8")  # a byte that is not UTF-8 came in as a lone surrogate
    return value.content


def _to_bytes(value: Scalar) -> bytes:
    if value.kind != "string":
        raise ValueError(value)
    if isinstance(value.content, bytes):
        return value.content
    return value.content.encode("utf-8", "surrogateescape")


def _to_integer(low: int, high: int, value: Scalar) -> int:
    number = integer(value)
    if not low <= number <= high:
        raise ValueError(value)
    return number


def _to_bool(value: Scalar) -> bool:
    if value.kind == "name" and not value.negative:
        if value.content in _TRUE:
            return True
        if value.content in _FALSE:
            return False
    return bool(_to_integer(0, 1, value))


def _to_float(value: Scalar) -> float:
    text = value.content
    if not isinstance(text, str):
        raise ValueError(value)
    if value.kind == "integer":
        if not _DECIMAL.fullmatch(text):
            raise ValueError(value)
        number = float(text)
    elif value.kind == "float":
        number = float(text.rstrip("fF"))
    elif value.kind == "name" and text.lower() in _INFINITE:
        number = float("inf")
    elif value.kind == "name" and text.lower() == "nan":
        number = float("nan")
    else:
        raise ValueError(value)
    return -number if value.negative else number


def _to_enum(enum: EnumDescriptor, value: Scalar) -> int:
    if value.kind == "name" and not value.negative:
        found = enum.values_by_name.get(str(value.content))
    else:
        found = enum.values_by_number.get(integer(value))
    if found is None:
        raise ValueError(value)
    return int(found.number)
