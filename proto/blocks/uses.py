"""One use of a block: its parameters bound to values, its bottoms and tops to blobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import nearest
from ..tree import Field, Scalar, Value
from .copies import Copier, located
from .definitions import Definition, is_required, named_values, twice, value_of
from .names import Inner, Names
from .origins import Frame
from .rules import RULES
from .values import Blob, ExpansionError, Variable, Variables, kind, show

_FIELDS = ("name", "type", "bottom", "top", "with", *RULES)


@dataclass(slots=True)
class Use:
    """A layer whose type is a block.

    ``copies`` are its fields and ``headers`` its ``with``, as they stand in the text that begins
    at ``base``; ``frame`` is the one for copies of the block's body.
    """

    definition: Definition
    frame: Frame
    copies: list[Field]
    headers: list[Field]
    base: int
    offset: int
    copier: Copier

    def open(self, outer: Names, around: Variables, shared: Variables) -> tuple[Inner, Variables]:
        """The names and variables inside; ``shared`` are those of the whole file."""
        definition = self.definition
        for copy in self.copies:
            if copy.name not in _FIELDS:
                raise ExpansionError(
                    f"a use of block {definition.name!r} takes no {copy.name!r} "
                    "(values for the block go into 'with')",
                    copy.offset,
                )
        bottoms = self._blobs("bottom", definition.bottoms, outer.bottom)
        tops = self._blobs("top", definition.tops, outer.top)
        names = Inner(outer, single(self.copies, "name"), definition.name, {})
        names.last = bottoms[0][0] if bottoms else outer.last
        variables = Variables(shared, names)
        self._bind(around, variables)
        self._connect(names, variables, bottoms, tops)
        return names, variables

    def result(self, names: Inner, variables: Variables) -> Blob | None:
        """What comes out: the first declared top, else the blob made last.

        A top that is also a bottom, and that no layer makes, hands on what came in.
        """
        result = names.last
        base = self.frame.base
        passed = {self.copier.evaluate(part, base, variables) for part in self.definition.bottoms}
        for value in reversed(self.definition.tops):
            name = self.copier.evaluate(value, base, variables)
            if name not in names.made and name not in passed:
                raise ExpansionError(
                    f"block {self.definition.name!r} has the top {name!r}, but no layer in it "
                    f"makes it{nearest(str(name), names.made)}",
                    base + value.offset,
                )
            result = names.made.get(name) or names.given[name]
        return result

    def _blobs(
        self, what: str, declared: list[Value], resolve: Callable[[str], Blob]
    ) -> list[tuple[Blob, int]]:
        """The blobs that the use gives as ``bottom`` or ``top``, with their places."""
        found: list[tuple[Blob, int]] = []
        for value in strings(self.copies, what):
            if len(found) == len(declared):
                raise ExpansionError(
                    f"block {self.definition.name!r} takes {len(declared)} {what}s, got more",
                    value.offset,
                    self._defined(),
                )
            with located(value.offset):
                found.append((resolve(str_of(value)), value.offset))
        return found

    def _defined(self) -> tuple[tuple[str, int], ...]:
        return (("the block is defined here", self.frame.base + self.definition.offset),)

    def _bind(self, around: Variables, inner: Variables) -> None:
        """Give the parameters the use's values, or their defaults."""
        base, parameters = self.frame.base, self.definition.parameters
        given = self._given()
        missing = [
            name for name in parameters if name not in given and is_required(parameters[name])
        ]
        if missing:
            raise ExpansionError(
                f"block {self.definition.name!r} needs {' and '.join(map(repr, missing))}",
                self.offset,
                (("required here", base + parameters[missing[0]].offset),),
            )
        values: dict[str, Variable] = {}
        self.frame.values = values
        for name, parameter in parameters.items():
            value = None
            if not is_required(parameter):
                value = self.copier.evaluate(value_of(parameter), base, inner)
            if name in given:
                default = value
                value = self.copier.evaluate(value_of(given[name]), self.base, around)
                check_kind(name, value, default, self.base + given[name].offset)
                values[name] = value
            inner[name] = value

    def _given(self) -> dict[str, Field]:
        """The values of the use's ``with``, by name."""
        given: dict[str, Field] = {}
        for header in self.headers:
            for named in named_values(header, self.base):
                if named.name not in self.definition.parameters:
                    hint = nearest(named.name, self.definition.parameters)
                    raise ExpansionError(
                        f"block {self.definition.name!r} has no parameter {named.name!r}{hint}",
                        self.base + named.offset,
                        self._defined(),
                    )
                if named.name in given:
                    raise twice(named, self.base, self.base + given[named.name].offset)
                given[named.name] = named
        return given

    def _connect(
        self,
        names: Inner,
        variables: Variables,
        bottoms: list[tuple[Blob, int]],
        tops: list[tuple[Blob, int]],
    ) -> None:
        """Say which blobs the declared bottoms and tops stand for.

        Of the bottoms that the use leaves out, the first is the blob made last, any other the
        one of the same name outside.
        """
        base, given = self.frame.base, names.given
        for index, value in enumerate(self.definition.bottoms):
            name = self.copier.evaluate(value, base, variables)
            if index < len(bottoms):
                given[name] = bottoms[index][0]
            elif index == 0 and names.last is not None:
                given[name] = names.last
            else:
                with located(self.offset):
                    given[name] = names.outer.bottom(name)
        for value, (top, offset) in zip(self.definition.tops, tops, strict=False):
            name = self.copier.evaluate(value, base, variables)
            if given.setdefault(name, top) != top:
                raise ExpansionError(
                    f"block {self.definition.name!r} works in place: "
                    f"its top must be {given[name]!r}, got {top!r}",
                    offset,
                )


def check_kind(name: str, value: Variable, default: Variable, offset: int) -> None:
    """Refuse a value of another kind than the default's, such as text for a number."""
    if value is None or default is None or kind(value) == kind(default):
        return
    raise ExpansionError(
        f"{name!r} must be {kind(default)} like its default {show(default)}, got {show(value)}",
        offset,
    )


def strings(copies: list[Field], name: str) -> list[Scalar]:
    """The values of the fields called ``name``, which must be text."""
    found: list[Scalar] = []
    for copy in copies:
        if copy.name != name:
            continue
        for value in copy.values:
            if not isinstance(value, Scalar) or not isinstance(value.content, str):
                raise ExpansionError(f"{name!r} must be a string in quotes", copy.offset)
            found.append(value)
    return found


def single(copies: list[Field], name: str) -> str:
    """The text of the one field called ``name``, or an empty text."""
    found = strings(copies, name)
    if len(found) > 1:
        related = (("it is first given here", found[0].offset),)
        raise ExpansionError(f"{name!r} may be given only once", found[1].offset, related)
    return str_of(found[0]) if found else ""


def str_of(value: Scalar) -> str:
    assert isinstance(value.content, str)
    return value.content
