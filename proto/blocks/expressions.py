"""Arithmetic in values: what stands between ``${`` and ``}``.

    expression = term { ("+" | "-") term }
    term       = factor { ("*" | "/" | "//" | "%") factor }
    factor     = { "-" } ( number | name | "(" expression ")" )

``/`` gives a fraction, ``//`` rounds down to a whole number and ``%`` is the rest of that.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping

from .values import MAX_TEXT, Blob, ExpansionError, Variable, as_text, show

Compiled = Callable[[Mapping[str, Variable]], Variable]

#: Longer expressions and larger whole numbers are no net's arithmetic.
MAX_EXPRESSION = 500
MAX_DEPTH = 50
MAX_WHOLE = 2**64

_TOKEN = re.compile(
    r"\s*(?:(?P<float>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)|(?P<integer>\d+)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<symbol>//|[-+*/%()])|(?P<end>\Z)|(?P<bad>.))",
    re.ASCII,
)
_PART = re.compile(r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_]\w*)|\{(?P<braces>[^{}]*)\})?", re.ASCII)


@functools.lru_cache(maxsize=4096)
def compile_expression(text: str) -> Compiled:
    """A function from the variables to the value of the expression ``text``."""
    if text.isidentifier():
        return lambda variables: variables[text]
    if len(text) > MAX_EXPRESSION:
        raise ExpansionError(f"an expression of more than {MAX_EXPRESSION} characters")
    return _Parser(text).parse()


@functools.lru_cache(maxsize=4096)
def compile_text(text: str) -> Compiled:
    """A function from the variables to ``text`` with ``$name`` and ``${...}`` filled in."""
    parts: list[str | tuple[str, Compiled]] = []
    position = 0
    for match in _PART.finditer(text):
        parts.append(text[position : match.start()])
        position = match.end()
        if match["dollar"]:
            parts.append("$")
            continue
        inner = match["name"] or match["braces"]
        if inner is None:
            raise ExpansionError("a dollar sign by itself is written $$ in a file with variables")
        parts.append((inner, compile_expression(inner)))
    parts.append(text[position:])
    parts = [part for part in parts if part]
    return functools.partial(_fill, parts)


def _fill(parts: list[str | tuple[str, Compiled]], variables: Mapping[str, Variable]) -> str:
    filled: list[str] = []
    for part in parts:
        if isinstance(part, str):
            filled.append(part)
            continue
        value = part[1](variables)
        if isinstance(value, Blob) and len(parts) == 1:
            return value
        filled.append(as_text(value, part[0]))
    text = "".join(filled)
    if len(text) > MAX_TEXT:
        raise ExpansionError(
            f"a text of {len(text):,} characters; at most {MAX_TEXT:,} can be made"
        )
    return text


class _Parser:
    """Recursive descent over one expression; each method returns the function of its part."""

    def __init__(self, text: str) -> None:
        self._whole = text
        self._matches = _TOKEN.finditer(text)
        self._depth = 0
        self._advance()

    def _advance(self) -> None:
        match = next(self._matches)
        self._kind = str(match.lastgroup)
        self._text = match[self._kind]

    def parse(self) -> Compiled:
        value = self._sum()
        if self._kind != "end":
            self._refuse("an operator")
        return value

    def _refuse(self, wanted: str) -> None:
        got = "its end" if self._kind == "end" else repr(self._text)
        raise ExpansionError(f"expected {wanted} in '{self._whole}', got {got}")

    def _sum(self) -> Compiled:
        left = self._product()
        while self._text in ("+", "-"):
            symbol = self._text
            self._advance()
            left = _operation(symbol, left, self._product())
        return left

    def _product(self) -> Compiled:
        left = self._factor()
        while self._text in ("*", "/", "//", "%"):
            symbol = self._text
            self._advance()
            left = _operation(symbol, left, self._factor())
        return left

    def _factor(self) -> Compiled:
        negative = False
        while self._text == "-":
            negative = not negative
            self._advance()
        value = self._atom()
        return _operation("-", _constant(0), value) if negative else value

    def _atom(self) -> Compiled:
        text, kind = self._text, self._kind
        if kind == "integer":
            self._advance()
            return _constant(_checked(int(text)))
        if kind == "float":
            self._advance()
            return _constant(_checked(float(text)))
        if kind == "name":
            self._advance()
            return lambda variables: variables[text]
        if text != "(":
            self._refuse("a number or a variable")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpansionError(f"parentheses nested more than {MAX_DEPTH} deep")
        self._advance()
        value = self._sum()
        self._depth -= 1
        if self._text != ")":
            self._refuse("')'")
        self._advance()
        return value


def _constant(value: Variable) -> Compiled:
    return lambda variables: value


def _operation(symbol: str, left: Compiled, right: Compiled) -> Compiled:
    return lambda variables: calculate(symbol, left(variables), right(variables))


def calculate(symbol: str, left: Variable, right: Variable) -> int | float:
    """One operation on two numbers; ExpansionError if they are none or it has no result."""
    for value in (left, right):
        if not isinstance(value, int | float):
            raise ExpansionError(f"arithmetic needs numbers, got {show(value)}")
    try:
        return _checked(_OPERATIONS[symbol](left, right))
    except ZeroDivisionError:
        raise ExpansionError(f"division by zero: {show(left)} {symbol} {show(right)}") from None
    except OverflowError:
        raise ExpansionError(f"{show(left)} {symbol} {show(right)} is too large") from None


_OPERATIONS: dict[str, Callable[[float, float], int | float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "//": lambda left, right: int(left // right),
    "%": lambda left, right: left % right,
}


def _checked(value: int | float) -> int | float:
    if isinstance(value, int):
        if abs(value) >= MAX_WHOLE:
            raise ExpansionError("a whole number of more than 64 bits")
    elif not math.isfinite(value):
        raise ExpansionError("a result that is no finite number")
    return value
