"""Prototxt as a tree of named values: what the text says, before any schema is consulted.

:func:`read` turns a text into a :class:`Block` and a list of faults; after a fault it goes on at a
sensible place, so that one reading finds all of them. The grammar is protobuf's text format as
Caffe's own reader takes it:

    file   = { field }
    field  = name [":"] block | name ":" value | name [":"] list, then an optional "," or ";"
    block  = "{" { field } "}" | "<" { field } ">"
    list   = "[" [ value or block { "," value or block } ] "]"
    value  = ["-"] number | ["-"] name | string { string }

and, for the short form of nets (:mod:`.blocks`), which marks the tree as ``extended``:

    value  = ... | ["-"] "$" name | ["-"] "${" expression "}"
    list   = a value may also be a list, or a range: value ".." value

Comments run from ``#`` to the end of the line. Strings stand in single or double quotes on one
line, with C's escapes; strings next to each other are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import ConfigError, Fault, Source
from .tree import Block, Field, Items, Range, Root, Scalar, Value

#: How deep blocks may be nested, as in protobuf's own readers.
MAX_DEPTH = 100
#: No net has this many values; reading on would only take time and memory.
MAX_VALUES = 250_000
#: After this many faults the rest of a text is not looked at: it is something else altogether.
MAX_FAULTS = 50

# One match is one token with the blanks and comments before it. Possessive repetitions keep the
# scan linear whatever the text holds.
_TOKEN = re.compile(
    r"""(?:[ \t\r\n\f\v]++|\#[^\n]*+)*+
    (?:(?P<name>[A-Za-z_]\w*+)
    |(?P<string>"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+')
    |(?P<integer>0[xX][0-9a-fA-F]++(?![\w.])|[0-9]++(?!\w|\.(?!\.)))
    |(?P<float>(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?[fF]?(?![\w.]))
    |(?P<symbol>[{}<>\[\]:;,-])
    |(?P<expression>\$(?:[A-Za-z_]\w*+|\{[^{}\n]*+\}))
    |(?P<range>\.\.)
    |(?P<end>\Z)
    |(?P<bad>["'][^\n]*+|[\w.]++|.))""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))"
)
_PLAIN_ESCAPES = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
    b"\\": b"\\", b"?": b"?", b"'": b"'", b'"': b'"',
}  # fmt: skip
_CLOSERS = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault at an offset of the text that is being read; ``related`` are further offsets."""

    offset: int
    message: str
    related: tuple[tuple[str, int], ...] = ()

    def fault(self, source: Source) -> Fault:
        notes = tuple((note, source.locate(offset)) for note, offset in self.related)
        return Fault(self.message, source.locate(self.offset), notes)


class TooManyFaultsError(Exception):
    """Ends the reading of a text that will not make sense any more."""


def read(source: Source) -> tuple[Root, list[Problem]]:
    """The tree of ``source``'s fields, and the syntax faults in the order of the text."""
    reader = _Reader(source.text)
    root = Root(0)
    try:
        reader.read_fields(root, None)
    except TooManyFaultsError:
        root.fields.clear()  # half a tree would only bring faults that follow from the cut
    root.extended = reader.extended
    return root, reader.problems


def unescape(content: str) -> str | bytes:
    """The content of a string literal with its escapes resolved; ValueError if one is wrong."""
    if "\\" not in content:
        return content
    raw = _ESCAPE.sub(_resolve, content.encode("utf-8", "surrogateescape"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _resolve(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, plain = match.groups()
    if octal or hexadecimal:
        code = int(octal, 8) if octal else int(hexadecimal, 16)
        if code > 255:
            raise ValueError(f"the escape {match.group().decode()} is larger than a byte")
        return bytes([code])
    if short or long:
        code = int(short or long, 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise ValueError(f"the escape {match.group().decode()} is no Unicode character")
        return chr(code).encode("utf-8")
    if plain not in _PLAIN_ESCAPES:
        text = match.group().decode("utf-8", "replace")
        raise ValueError(f"strings have no escape {text!r}; a backslash itself is written \\\\")
    return _PLAIN_ESCAPES[plain]


class _Reader:
    """A walk over the tokens with one token in sight: ``kind``, ``text`` and ``offset``."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self.extended = False
        self._whole = text
        self._matches: Iterator[re.Match[str]] = _TOKEN.finditer(text)
        self._depth = 0
        self._ended_early = False
        self._values = 0
        self._end = 0  # where the token before this one ended
        self.kind: str | None = None
        self.text = ""
        self.offset = 0
        self.advance()

    def advance(self) -> None:
        if self.kind == "end":
            return
        self._end = self.offset + len(self.text)
        match = next(self._matches)
        kind = match.lastgroup
        assert kind is not None
        self.kind = kind
        self.text = match[kind]
        self.offset = match.start(kind)

    def report(self, message: str, offset: int, related: tuple[tuple[str, int], ...] = ()) -> None:
        self.problems.append(Problem(offset, message, related))
        if len(self.problems) >= MAX_FAULTS:
            raise TooManyFaultsError

    def _count(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            self.report(f"the text has more than {MAX_VALUES:,} values", self.offset)
            raise TooManyFaultsError

    def take(self, symbols: str) -> bool:
        """Step over one of ``symbols`` if it is next."""
        if self.kind == "symbol" and self.text in symbols:
            self.advance()
            return True
        return False

    def read_fields(self, block: Block, closer: str | None) -> None:
        """Fill ``block`` up to ``closer`` (None: up to the end of the text) and step over it."""
        while True:
            if self.kind == "name":
                self._read_field(block)
            elif self.kind == "end":
                block.closed = closer is None
                return
            elif self.kind == "symbol" and self.text in "}>":
                if closer is None:
                    self._refuse_closer(block)
                    continue
                if self.text != closer:
                    opened = (("opened here", block.offset),)
                    self.report(f"must be {closer!r}, got {self.text!r}", self.offset, opened)
                self.advance()
                return
            else:
                self._report_unexpected("the name of a field")
                self._skip_line()

    def _read_field(self, block: Block) -> None:
        name, offset = self.text, self.offset
        self._count()
        self.advance()
        while True:
            colon = self.take(":") or self._take_equals(name)
            if self.kind == "symbol" and self.text in "{<":
                block.fields.append(Field(name, offset, [self._read_block(offset)]))
            elif self.kind == "symbol" and self.text == "[":
                values: list[Value] = []
                block.fields.append(Field(name, offset, values, listed=True))
                self._read_list(values)
            else:
                if not colon and not self._excuse_colon(name):
                    return
                value = self._read_scalar(f"a value of {name!r}")
                if value is None:
                    return
                if value.kind == "name" and self.kind == "symbol" and self.text in ":{<":
                    # What looked like the value is the next field's name.
                    self.report(f"{name!r} has no value", offset)
                    assert isinstance(value.content, str)
                    name, offset = value.content, value.offset
                    continue
                block.fields.append(Field(name, offset, [value]))
            self.take(",;")
            return

    def _excuse_colon(self, name: str) -> bool:
        """Report a missing colon; whether a value follows on the line all the same."""
        same_line = "\n" not in self._whole[self._end : self.offset]
        if not same_line or self.kind == "end" or (self.kind == "symbol" and self.text != "-"):
            self.report(f"{name!r} has no value: expected ':' or '{{'", self._end)
            return False
        self.report(f"expected ':' or '{{' after {name!r}, got {self.text[:60]!r}", self.offset)
        return True

    def _take_equals(self, name: str) -> bool:
        """Step over a "=" that was written for a colon, with a report."""
        if self.text != "=":
            return False
        self.report(f"expected ':' after {name!r}, got '='", self.offset)
        self.advance()
        return True

    def _read_block(self, offset: int) -> Block:
        """The block that begins here; ``offset`` is where its field's name stands."""
        self._check_depth()
        closer = _CLOSERS[self.text]
        opener = self.offset
        block = Block(offset)
        self.advance()
        self._depth += 1
        self.read_fields(block, closer)
        self._depth -= 1
        if not block.closed and not self._ended_early:
            self._ended_early = True  # the blocks around it are open as well: one report is enough
            self.report("this block is never closed", opener)
        return block

    def _read_list(self, values: list[Value]) -> None:
        opener = self.offset
        self.advance()
        if self.take("]"):
            return
        while True:
            self._count()
            value = self._read_item()
            if value is None:
                return
            values.append(value)
            if self.take("]"):
                return
            if not self.take(","):
                opened = (("the list begins here", opener),)
                got = "the end of the text" if self.kind == "end" else repr(self.text[:60])
                self.report(f"expected ',' or ']', got {got}", self.offset, opened)
                self._skip_line(list_too=True)
                return

    def _read_item(self) -> Value | None:
        """One value of a list; None, after a report, if there is none."""
        if self.kind == "symbol" and self.text in "{<":
            return self._read_block(self.offset)
        if self.kind == "symbol" and self.text == "[":
            return self._read_inner_list()
        low = self._read_scalar("a value of the list")
        if low is None or self.kind != "range":
            return low
        self.extended = True
        self.advance()
        high = self._read_scalar("the end of the range")
        return None if high is None else Range(low, high)

    def _read_inner_list(self) -> Value:
        self._check_depth()
        self.extended = True
        items = Items(self.offset, [])
        self._depth += 1
        self._read_list(items.values)
        self._depth -= 1
        return items

    def _check_depth(self) -> None:
        if self._depth >= MAX_DEPTH:
            self.report(f"blocks are nested more than {MAX_DEPTH} deep", self.offset)
            raise TooManyFaultsError

    def _read_scalar(self, wanted: str) -> Scalar | None:
        """The value that stands here; None, after a report, if there is none."""
        offset = self.offset
        negative = self.take("-")
        kind = self.kind
        if kind in ("name", "integer", "float"):
            value = Scalar(str(kind), self.text, offset, negative)
            self.advance()
            return value
        if kind == "string" and not negative:
            return self._read_strings(offset)
        if kind == "expression":
            self.extended = True
            text = self.text[2:-1] if self.text[1] == "{" else self.text[1:]
            self.advance()
            return Scalar("expression", text, offset, negative)
        self._report_unexpected(wanted)
        if self.kind != "end" and not (self.kind == "symbol" and self.text in "}>"):
            self._skip_line(list_too=True)
        return None

    def _read_strings(self, offset: int) -> Scalar:
        parts: list[str | bytes] = []
        while self.kind == "string":
            try:
                parts.append(unescape(self.text[1:-1]))
            except ValueError as error:
                self.report(str(error), self.offset)
            self.advance()
        if len(parts) == 1:
            return Scalar("string", parts[0], offset, False)
        raw = b"".join(
            part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
            for part in parts
        )
        try:
            return Scalar("string", raw.decode("utf-8"), offset, False)
        except UnicodeDecodeError:
            return Scalar("string", raw, offset, False)

    def _report_unexpected(self, wanted: str) -> None:
        if self.kind == "bad" and self.text[0] in "\"'":
            self.report("this string is never closed: strings end on their line", self.offset)
        elif self.kind == "end":
            self.report(f"expected {wanted}, got the end of the text", self._end)
        elif self.text == "$":
            self.report("expected a variable as $name or an expression as ${...}", self.offset)
        else:
            self.report(f"expected {wanted}, got {self.text[:60]!r}", self.offset)

    def _refuse_closer(self, block: Block) -> None:
        """Report a closing brace too many, and forget the fields it was meant to close."""
        self.report(f"{self.text!r} closes nothing", self.offset)
        while block.fields and all(isinstance(v, Scalar) for v in block.fields[-1].values):
            block.fields.pop()
        self.advance()

    def _skip_line(self, list_too: bool = False) -> None:
        """Go on at the next line that begins with a name or a closing brace.

        Blocks opened on the way are skipped whole; with ``list_too`` a ``]`` ends the skipping.
        """
        depth = 0
        while self.kind != "end":
            symbol = self.text if self.kind == "symbol" else ""
            if depth == 0 and (symbol == "}" or self.kind in ("name", "symbol")):
                if symbol == "}" or "\n" in self._whole[self._end : self.offset]:
                    return
                if list_too and symbol == "]":
                    self.advance()
                    return
            depth += (symbol == "{") - (symbol == "}")
            self.advance()


def refuse(source: Source, problems: list[Problem]) -> ConfigError:
    """One error for all ``problems``, in the order of the text.

    What is wrong in a block that is used many times is told for its first use only.
    """
    ordered = sorted(problems, key=lambda problem: problem.offset)
    faults = [problem.fault(source) for problem in ordered]
    told = {(str(fault.location), fault.message): fault for fault in reversed(faults)}
    return ConfigError(list(reversed(told.values()))[:MAX_FAULTS])
