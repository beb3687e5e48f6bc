"""Blocks as they are defined, and lists of named values (``with { ... }``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import Source
from ..tree import Block, Field, Items, Scalar, Value
from .values import ExpansionError

#: Fields of a block's definition that are not its body.
_HEADER = ("name", "bottom", "top", "with")
#: Names of variables with a meaning of their own.
RESERVED = ("last", "none", "required")


@dataclass(slots=True)
class Definition:
    """A block: what it takes, what it gives, and the fields it stands for."""

    name: str
    source: Source
    offset: int
    bottoms: list[Value] = field(default_factory=list)
    tops: list[Value] = field(default_factory=list)
    parameters: dict[str, Field] = field(default_factory=dict)
    body: list[Field] = field(default_factory=list)


def define(block: Block, source: Source, base: int) -> Definition:
    """Read a ``block { ... }``; ``base`` is what its frame adds to its offsets."""
    definition = Definition("", source, block.offset)
    for part in block.fields:
        if part.name == "name":
            value = part.values[0]
            if not isinstance(value, Scalar) or value.kind != "string" or part.listed:
                raise ExpansionError("a block's name is a text in quotes", base + part.offset)
            definition.name = str(value.content)
        elif part.name == "bottom":
            definition.bottoms += part.values
        elif part.name == "top":
            definition.tops += part.values
        elif part.name == "with":
            for parameter in named_values(part, base):
                if parameter.name in definition.parameters:
                    first = definition.parameters[parameter.name].offset
                    raise twice(parameter, base, first + base)
                definition.parameters[parameter.name] = parameter
        else:
            definition.body.append(part)
    if not definition.name:
        raise ExpansionError("a block needs a name", base + block.offset)
    return definition


def named_values(part: Field, base: int) -> Iterator[Field]:
    """The fields of ``with { ... }``, each of which names a variable."""
    for value in part.values:
        if not isinstance(value, Block):
            raise ExpansionError(
                f"'{part.name}' must be followed by values in braces", base + part.offset
            )
        for inner in value.fields:
            if inner.name in RESERVED:
                raise ExpansionError(
                    f"a variable cannot be called {inner.name!r}, which has a meaning of its own",
                    base + inner.offset,
                )
            yield inner


def value_of(part: Field) -> Value:
    """A field's one value; a ``[list]`` is one as well."""
    return Items(part.offset, part.values) if part.listed else part.values[0]


def is_required(part: Field) -> bool:
    value = part.values[0] if part.values else None
    return isinstance(value, Scalar) and value.kind == "name" and value.content == "required"


def twice(part: Field, base: int, first: int) -> ExpansionError:
    """The error for a name that is given a second time in ``part``."""
    related = (("it is first given here", first),)
    return ExpansionError(f"{part.name!r} may be given only once", base + part.offset, related)


def split(fields: Iterable[Field], name: str) -> tuple[list[Field], list[Field]]:
    """The fields called ``name``, and the others."""
    found: list[Field] = []
    others: list[Field] = []
    for part in fields:
        (found if part.name == name else others).append(part)
    return found, others
