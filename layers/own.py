"""The block of a user's own layer type, read as the arguments of its class's constructor.

``mish2_param { beta: 1.5 }`` becomes ``Mish2(beta=1.5)``. The constructor's annotations say what
each field must be: bool, int, float, str, a Literal, a Filler (a block as of ``weight_filler``), a
tuple, list or Sequence of these (a repeated field), and None beside any of them.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..proto import caffe_pb2
from ..proto.errors import LayerError, nearest
from ..proto.own import block_name, written
from . import fillers

Values = Sequence[caffe_pb2.OwnValue]

_PACKAGE = __name__.partition(".")[0] + "."
_TRUTHS = {"true": True, "false": False}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def arguments(cls: type, message: caffe_pb2.LayerParameter) -> dict[str, Any]:
    """The fields of the layer's own block, as arguments of ``cls``.

    Raises LayerError for a field that the constructor has not or that holds another kind of value.
    """
    check(cls, message)
    found: dict[str, Any] = {}
    for block in message.own_param:
        known = _annotations(cls)
        for field in block.field:
            path = f"{block.name}.{field.name}"
            if field.name not in known:
                hint = nearest(field.name, known)
                raise LayerError(f"{message.type} has no field {field.name!r}{hint}", path)
            found[field.name] = _converted(known[field.name], field.value, field.name, path)
    return _complete(cls, message, found)


def check(cls: type, message: caffe_pb2.LayerParameter) -> None:
    """LayerError for a block that looks like the type's own where the schema has another one."""
    if not message.own_param or not cls.__module__.startswith(_PACKAGE):
        return
    name = message.own_param[0].name
    hint = nearest(name, [field] if (field := getattr(cls, "message_field", "")) else [])
    raise LayerError(f"a layer of type {message.type} has no field {name!r}{hint}", name)


def _annotations(cls: type) -> dict[str, Any]:
    """What each argument that can be written in prototxt must be; Any where nothing says so."""
    constructor: Callable[..., None] = cls.__init__  # type: ignore[misc]
    hints = get_type_hints(constructor)
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return {
        each.name: hints.get(each.name, Any)
        for each in parameters
        if each.name != "context" and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }


def _complete(
    cls: type, message: caffe_pb2.LayerParameter, found: dict[str, Any]
) -> dict[str, Any]:
    """``found``; LayerError if it lacks an argument that has no default."""
    if cls.__module__.startswith(_PACKAGE):
        return found
    for each in list(inspect.signature(cls).parameters.values()):
        needed = each.default is each.empty and each.kind is not each.VAR_POSITIONAL
        if needed and each.kind is not each.VAR_KEYWORD and each.name not in (*found, "context"):
            block = message.own_param[0].name if message.own_param else block_name(message.type)
            raise LayerError(f"{block} must give {each.name!r}", block)
    return found


def _converted(wanted: Any, values: Values, name: str, path: str) -> Any:
    """The value or values of one field, as the annotation ``wanted`` asks."""
    options = [each for each in _alternatives(wanted) if each is not type(None)]
    for option in options:
        if get_origin(option) in (tuple, list, Sequence) and option != fillers.Filler:
            each = (get_args(option) or (Any,))[0]
            return tuple(_single(each, value, name, path) for value in values)
    if len(values) != 1:
        raise LayerError(f"{name!r} may be given only once", path)
    return _single(options[0] if options else Any, values[0], name, path)


def _alternatives(wanted: Any) -> tuple[Any, ...]:
    return get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)


def _single(wanted: Any, value: caffe_pb2.OwnValue, name: str, path: str) -> Any:
    if wanted == fillers.Filler:
        if not value.HasField("block"):
            raise LayerError(f"{name!r} must be a block in braces, got {written(value)}", path)
        return fillers.from_message(_filler(value.block, path), path)
    plain = _plain(value)
    if get_origin(wanted) is Literal:
        choices = get_args(wanted)
        if plain not in choices:
            listed = ", ".join(str(choice) for choice in choices)
            hint = nearest(str(plain), [str(choice) for choice in choices])
            raise LayerError(f"{name!r} must be one of {listed}, got {written(value)}{hint}", path)
        return plain
    if wanted is float and type(plain) is int:
        return float(plain)
    if wanted in _WANTED and (type(plain) is not wanted or (wanted is str and value.word)):
        raise LayerError(f"{name!r} must be {_WANTED[wanted]}, got {written(value)}", path)
    return plain


def _plain(value: caffe_pb2.OwnValue) -> Any:
    """A value in Python's own type; a word that is no truth or number is a string."""
    kind = value.ListFields()[0][0].name if value.ListFields() else "text"
    if kind != "word":
        return getattr(value, kind)
    if value.word in _TRUTHS:
        return _TRUTHS[value.word]
    return float(value.word) if value.word.lstrip("-") in ("inf", "nan") else value.word


def _filler(block: caffe_pb2.OwnParameter, path: str) -> caffe_pb2.FillerParameter:
    """The FillerParameter that a block of a filler's fields stands for."""
    message = caffe_pb2.FillerParameter()
    known = message.DESCRIPTOR.fields_by_name
    for field in block.field:
        place = f"{path}.{field.name}"
        if field.name not in known or len(field.value) != 1:
            hint = nearest(field.name, known)
            raise LayerError(f"a filler has no field {field.name!r} of this kind{hint}", place)
        plain = _plain(field.value[0])
        enum = known[field.name].enum_type
        try:
            if enum is not None:
                plain = enum.values_by_name[plain].number
            setattr(message, field.name, plain)
        except (TypeError, ValueError, KeyError):
            got = written(field.value[0])
            raise LayerError(f"{field.name!r} of a filler cannot be {got}", place) from None
    return message
