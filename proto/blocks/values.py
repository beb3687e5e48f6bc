"""What a variable can hold, and how it goes back into a syntax tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import nearest
from ..tree import Block, Range, Scalar

#: A number, text, a :class:`Word`, a :class:`Blob`, a list of values, a Block, or None (``none``).
Variable = Any

#: Text that interpolation may make, and items that a range may have: more is runaway repetition.
MAX_TEXT = 4096
MAX_ITEMS = 100_000


class Word(str):
    """A bare name: a value of an enum, or true and false."""

    __slots__ = ()


class Blob(str):
    """The final name of a blob, in which no block's scope changes anything any more."""

    __slots__ = ()


class ExpansionError(Exception):
    """What cannot be expanded; ``offset`` and those in ``related`` count in the expanded source."""

    def __init__(
        self, message: str, offset: int = -1, related: tuple[tuple[str, int], ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.related = related


class Variables(dict[str, Variable]):
    """The variables in sight; ``last``, which each layer changes, is asked for from ``names``."""

    __slots__ = ("names",)

    def __init__(self, values: Mapping[str, Variable], names: Any) -> None:
        super().__init__(values)
        self.names = names

    def __missing__(self, name: str) -> Variable:
        if name == "last":
            if self.names.last is None:
                raise ExpansionError("$last is the top of the layer before, but there is none")
            return self.names.last
        hint = nearest(name, (*self, "last"))
        raise ExpansionError(f"there is no variable {name!r}{hint}")


def show(value: Variable) -> str:
    """A value for an error message, shortened."""
    if isinstance(value, list):
        text = f"[{', '.join(show(item) for item in value[:8])}{', ...' if value[8:] else ''}]"
    elif isinstance(value, Block):
        text = "{ ... }"
    elif value is None:
        text = "none"
    elif isinstance(value, str) and not isinstance(value, Word):
        text = f'"{value}"'
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def show_all(values: Mapping[str, Variable]) -> str:
    """Variables as they would be written: ``width: 64 kernel: 3``."""
    return " ".join(f"{name}: {show(value)}" for name, value in values.items())


def kind(value: Variable) -> str:
    """What sort of value it is, for checking a given value against a default."""
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str | bytes):
        return "text"
    return "a list" if isinstance(value, list) else "a block in braces"


def as_text(value: Variable, name: str) -> str:
    """How a value reads inside a string."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int | str):
        return str(value)
    raise ExpansionError(f"{name!r} is {show(value)}, which has no place inside a string")


def as_scalar(value: Variable, offset: int) -> Scalar:
    """A number or text as the tree holds it."""
    if isinstance(value, Word):
        return Scalar("name", value.removeprefix("-"), offset, value.startswith("-"))
    if isinstance(value, str | bytes):
        return Scalar("string", value, offset, False)
    text = repr(value)
    shape = "integer" if isinstance(value, int) else "float"
    return Scalar(shape, text.removeprefix("-"), offset, text.startswith("-"))


def from_python(value: object, default: Variable) -> Variable:
    """A value given from outside (``--set``, Python) as a variable of ``default``'s kind."""
    if isinstance(value, bool):
        return Word(str(value).lower())
    if isinstance(value, Word) and not isinstance(default, Word) and isinstance(default, str):
        return str(value)
    if type(value) is str and isinstance(default, Word):
        return Word(value)
    if isinstance(value, list | tuple):
        return [from_python(item, None) for item in value]
    return value


_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)\Z")


def items_of(span: Range, low: Variable, high: Variable) -> list[Variable]:
    """The values from ``low`` to ``high``, both included: 1..4, a..f or b1..b35."""
    if isinstance(low, int) and isinstance(high, int):
        return list(_count(low, high))
    if isinstance(low, str) and isinstance(high, str):
        first, last = _NUMBERED.match(low), _NUMBERED.match(high)
        if first and last and first[1] == last[1]:
            return [f"{first[1]}{number}" for number in _count(int(first[2]), int(last[2]))]
        if low and high and low[:-1] == high[:-1] and low[-1].isalpha() and high[-1].isalpha():
            return [low[:-1] + chr(code) for code in _count(ord(low[-1]), ord(high[-1]))]
    raise ExpansionError(
        f"a range goes from 1 to 4 as 1..4, from a to f as a..f, from b1 to b9 as b1..b9; "
        f"got {show(low)}..{show(high)}",
        span.offset,
    )


def _count(low: int, high: int) -> range:
    """The numbers of a range; from n+1 to n it is empty, which makes "no turn at all" possible."""
    if high < low - 1:
        raise ExpansionError(f"a range goes upwards, got {low}..{high}")
    if high - low >= MAX_ITEMS:
        raise ExpansionError(
            f"a range of {high - low + 1:,} values; at most {MAX_ITEMS:,} can be made"
        )
    return range(low, high + 1)
