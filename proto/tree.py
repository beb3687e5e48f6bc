"""The syntax tree of a prototxt: blocks of named fields, before any schema is consulted."""

from __future__ import annotations


class Scalar:
    """One value: ``kind`` is ``name``, ``string``, ``integer``, ``float`` or ``expression``.

    ``content`` is the text of a name or number without its sign, or the decoded content of a
    string: str as a rule, bytes where escapes made it something that is not UTF-8. An
    expression's is what follows the ``$``, without braces.
    """

    __slots__ = ("content", "kind", "negative", "offset")

    def __init__(self, kind: str, content: str | bytes, offset: int, negative: bool) -> None:
        self.kind = kind
        self.content = content
        self.offset = offset
        self.negative = negative

    def __str__(self) -> str:
        """The value as it might be written, shortened for an error message."""
        content = self.content
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        text = raw.decode("utf-8", "replace")
        text = text if len(text) <= 60 else f"{text[:57]}..."
        return f'"{text}"' if self.kind == "string" else f"{'-' if self.negative else ''}{text}"


class Block:
    """The fields between braces, or those of the whole file.

    ``closed`` is False where the text ended before the closing brace.
    """

    __slots__ = ("closed", "fields", "offset")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.fields: list[Field] = []
        self.closed = True


def integer(value: Scalar) -> int:
    """The number a scalar stands for, decimal, octal or hexadecimal; ValueError if it is none."""
    text = value.content
    if value.kind != "integer" or not isinstance(text, str) or len(text) > 40:
        raise ValueError(value)
    if text[:1] == "0" and len(text) > 1:
        number = int(text, 16) if text[1] in "xX" else int(text, 8)
    else:
        number = int(text)
    return -number if value.negative else number


class Root(Block):
    """A whole file; ``extended`` where a value stands in it that only the short form has."""

    __slots__ = ("extended",)

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.extended = False


class Items:
    """A list as a value of its own: inside another list, or as a variable's value."""

    __slots__ = ("offset", "values")

    def __init__(self, offset: int, values: list[Value]) -> None:
        self.offset = offset
        self.values = values


class Range:
    """``low..high`` in a list."""

    __slots__ = ("high", "low", "offset")

    def __init__(self, low: Scalar, high: Scalar) -> None:
        self.offset = low.offset
        self.low = low
        self.high = high


Value = Scalar | Block | Items | Range


class Field:
    """A name with its value, or with the values of a ``[list]`` (then ``listed`` is True)."""

    __slots__ = ("listed", "name", "offset", "values")

    def __init__(self, name: str, offset: int, values: list[Value], listed: bool = False) -> None:
        self.name = name
        self.offset = offset
        self.values = values
        self.listed = listed
