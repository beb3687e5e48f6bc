"""Copying fields out of definitions, with variables filled in and offsets moved to a frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..tree import Block, Field, Items, Range, Scalar, Value, integer
from .expressions import calculate, compile_expression, compile_text
from .values import ExpansionError, Variable, Variables, Word, as_scalar, items_of, show

#: Values that one expansion may make: many times those of any net, few enough to be made soon.
MAX_VALUES = 100_000


@contextlib.contextmanager
def located(offset: int) -> Iterator[None]:
    """Give an error that does not say where it happened this ``offset``."""
    try:
        yield
    except ExpansionError as error:
        if error.offset < 0:
            error.offset = offset
        raise


class Copier:
    """Evaluates values and copies fields; counts what it makes."""

    def __init__(self) -> None:
        self.made = 0

    def count(self, offset: int) -> None:
        self.made += 1
        if self.made > MAX_VALUES:
            raise ExpansionError(f"expands to more than {MAX_VALUES:,} values", offset)

    def evaluate(self, value: Value, base: int, variables: Variables) -> Variable:
        """What a value stands for; faults are at ``base`` plus the offset in its text."""
        self.count(base + value.offset)
        if isinstance(value, Block):
            block = Block(value.offset)
            block.fields = self.fields(value, base, variables)
            return block
        if isinstance(value, Items):
            return self._items(value, base, variables)
        if isinstance(value, Range):
            raise ExpansionError("a range stands in a list: [1..4]", base + value.offset)
        return _at(base + value.offset, value, variables)

    def _items(self, value: Items, base: int, variables: Variables) -> list[Variable]:
        items: list[Variable] = []
        for item in value.values:
            if isinstance(item, Range):
                with located(base + item.offset):
                    low, high = _scalar(item.low, variables), _scalar(item.high, variables)
                    items += items_of(item, low, high)
            else:
                items.append(self.evaluate(item, base, variables))
        return items

    def fields(self, block: Block, base: int, variables: Variables) -> list[Field]:
        """Copies of the fields of ``block``; those whose value is ``none`` are left out."""
        copies = (self.field(part, base, variables) for part in block.fields)
        return [copy for copy in copies if copy is not None]

    def field(self, part: Field, base: int, variables: Variables) -> Field | None:
        """A copy of one field, or None if its value is ``none``."""
        values: list[Value] = []
        listed = part.listed
        for value in part.values:
            if isinstance(value, Scalar):
                content = value.content
                if value.kind == "expression" or (
                    value.kind == "string" and isinstance(content, str) and "$" in content
                ):
                    found = _at(base + value.offset, value, variables)
                    listed = self._add(values, part, found, base, value.offset) or listed
                else:
                    self.made += 1
                    offset = value.offset + base
                    values.append(Scalar(value.kind, content, offset, value.negative))
            elif isinstance(value, Block):
                self.count(base + value.offset)
                copy = Block(value.offset + base)
                copy.fields = self.fields(value, base, variables)
                values.append(copy)
            elif isinstance(value, Range):
                items = self._items(Items(value.offset, [value]), base, variables)
                self._add(values, part, items, base, value.offset)
            else:
                self._refuse_nested(part, base)
        if part.values and not values and not part.listed:
            return None
        return Field(part.name, part.offset + base, values, listed)

    def _add(
        self, values: list[Value], part: Field, found: Variable, base: int, offset: int
    ) -> bool:
        """Append what a value turned out to be to a field's values; whether that is a list."""
        offset += base
        if isinstance(found, str | int | float):
            self.made += 1
            values.append(as_scalar(found, offset))
            return False
        items = found if isinstance(found, list) else [] if found is None else [found]
        for item in items:
            self.count(offset)
            if isinstance(item, list):
                self._refuse_nested(part, base)
            if isinstance(item, Block):
                values.append(self._moved(item, offset))
            elif item is not None:
                values.append(as_scalar(item, offset))
        return isinstance(found, list)

    def _refuse_nested(self, part: Field, base: int) -> None:
        raise ExpansionError(f"{part.name!r} cannot hold a list of lists", base + part.offset)

    def _moved(self, block: Block, offset: int) -> Block:
        """A copy of a block that a variable holds, all of it at the place of the variable."""
        copy = Block(offset)
        for part in block.fields:
            values: list[Value] = []
            for value in part.values:
                self.count(offset)
                if isinstance(value, Block):
                    values.append(self._moved(value, offset))
                else:
                    assert isinstance(value, Scalar)
                    values.append(Scalar(value.kind, value.content, offset, value.negative))
            copy.fields.append(Field(part.name, offset, values, part.listed))
        return copy


def _at(offset: int, value: Scalar, variables: Variables) -> Variable:
    try:
        return _scalar(value, variables)
    except ExpansionError as error:
        if error.offset < 0:
            error.offset = offset
        raise


def _scalar(value: Scalar, variables: Variables) -> Variable:
    content = value.content
    if value.kind == "expression":
        found = compile_expression(str(content).strip())(variables)
        return calculate("-", 0, found) if value.negative else found
    if value.kind == "string":
        return compile_text(content)(variables) if isinstance(content, str) else content
    if value.kind == "name":
        if content == "none" and not value.negative:
            return None
        return Word(f"-{content!s}" if value.negative else content)
    try:
        if value.kind == "integer":
            return integer(value)
    except ValueError:
        raise ExpansionError(f"{show(Word(content))} is no number") from None
    number = float(str(content).rstrip("fF"))
    return -number if value.negative else number
