"""The short form of prototxt from Python: what a NetSpec's file begins with, how values read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import text_encoding, text_format
from google.protobuf.message import Message

from ...proto import blocks
from ...proto.caffe_pb2 import LayerParameter, NetParameter
from ...proto.errors import ConfigError, Source, nearest
from ...proto.syntax import read, refuse
from ...proto.text import parse, to_text
from ...proto.tree import Scalar


class Verbatim(str):
    """A value as it is to stand in prototxt: ``$width``, ``${width // 2}``, ``AVE``, ``[1..4]``."""

    __slots__ = ()


#: The default of a block's parameter that has none.
required = Verbatim("required")


def is_short(value: Any) -> bool:
    """Whether there is something in ``value`` that only the short form can say."""
    if isinstance(value, Mapping):
        return any(is_short(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(is_short(each) for each in value)
    return isinstance(value, Verbatim)


def written(value: Any) -> str:
    """A Python value as a value of the short form, on one line."""
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, Mapping):
        return f"{{ {written_fields(value)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(each) for each in value)}]"
    if isinstance(value, Message):
        text = text_format.MessageToString(value, as_one_line=True)
        return f"{{ {text.replace('$', '$$')} }}"
    if isinstance(value, str):
        escaped = text_encoding.CEscape(value.encode("utf-8"), as_utf8=True)
        return f'"{escaped}"'.replace("$", "$$")
    if hasattr(value, "item") and hasattr(value, "dtype"):
        return written(value.item())
    if value is None:
        return "none"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    raise TypeError(f"prototxt has no value for a {type(value).__name__} ({value!r})")


def written_fields(values: Mapping[str, Any]) -> str:
    """Fields of these names and values, on one line."""
    return " ".join(
        f"{name}{'' if isinstance(value, Mapping) else ':'} {written(value)}"
        for name, value in values.items()
    )


def written_layer(layer: LayerParameter, more: Iterable[str] = ()) -> str:
    """A layer's message with further fields at its end, in a text where ``$`` is special."""
    text = to_text(NetParameter(layer=[layer])).replace("$", "$$").removesuffix("}\n")
    return text + "".join(f"  {line}\n" for line in more) + "}\n"


class Header:
    """The beginning of a file: its variables, the files that it includes, its own blocks.

    ``folder`` is where included files are looked for, besides the library.
    """

    def __init__(
        self,
        include: str | Iterable[str] = (),
        variables: Mapping[str, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        names = [include] if isinstance(include, str) else list(include)
        self.text = f"with {written(variables)}\n" if variables else ""
        self.text += "".join(f"include: {written(name)}\n" for name in names)

    def extended(self, text: str) -> Header:
        """This beginning, with ``text`` after it."""
        header = Header(folder=self.folder)
        header.text = self.text + text
        return header

    def expand(self, text: str) -> NetParameter:
        """The plain net of the short form ``text``, which includes from the folder."""
        return parse(text, NetParameter, "<NetSpec>", folder=self.folder).message

    def definition(self, name: str) -> blocks.Definition:
        """The block called ``name``; ConfigError if there is none."""
        if name not in self._definitions:
            raise ConfigError(f"there is no block {name!r}{nearest(name, self._definitions)}")
        return self._definitions[name]

    @cached_property
    def _definitions(self) -> dict[str, blocks.Definition]:
        source = Source("<NetSpec>", self.text)
        tree, problems = read(source)
        if problems:
            raise refuse(source, problems)
        return blocks.definitions(tree, source, self.folder)

    def result(self, use: str) -> str:
        """The blob that comes out of the use of a block that declares no top."""
        asked = 'layer { name: "last" type: "Silence" bottom: $last }'
        return self.expand(self.text + use + asked).layer[-1].bottom[0]


def arguments(values: Mapping[str, Any], definition: blocks.Definition) -> str:
    """``values`` as those given to a block: text for a parameter whose default is a bare word, such
    as ``MAX``, becomes one."""
    words = {
        name
        for name, parameter in definition.parameters.items()
        for default in parameter.values[:1]
        if isinstance(default, Scalar) and default.kind == "name"
        if not parameter.listed and default.content not in ("required", "none")
    }
    return written_fields(
        {
            name: Verbatim(value) if isinstance(value, str) and name in words else value
            for name, value in values.items()
        }
    )
