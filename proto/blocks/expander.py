"""From the short form to plain fields: blocks, repetition, variables and includes resolved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError, Source, nearest
from ..syntax import Problem
from ..tree import Block, Field, Root, Scalar, Value
from .copies import Copier, located
from .definitions import Definition, define, is_required, named_values, split, twice, value_of
from .includes import Includes
from .names import Names
from .origins import TURN, ExpandedSource, Frame
from .rules import RULES, within
from .settings import Settings
from .uses import Use, check_kind, single
from .values import Blob, ExpansionError, Variable, Variables, from_python, show

#: Words that begin something new where a plain message has no field of that name.
KEYWORDS = frozenset({"block", "include", "repeat", "with"})

#: Layers that one file may expand to, uses and turns on the way there, and uses inside each other.
MAX_LAYERS = 10_000
MAX_STEPS = 20_000
MAX_NESTING = 30


def expand(
    tree: Root,
    source: Source,
    keywords: frozenset[str] = KEYWORDS,
    folder: Path | None = None,
    settings: Settings | None = None,
) -> tuple[Block, ExpandedSource]:
    """The plain tree that the short form ``tree`` stands for, and the source of its offsets.

    ``keywords`` are the words that the message has no field for, ``folder`` the one to include
    from besides the library, ``settings`` values for the file's variables, which the file marks as
    known. Raises ConfigError.
    """
    expander = _Expander(source, keywords, folder, settings or Settings())
    expander.walk(tree, source)
    root = Block(0)
    root.fields = expander.out
    return root, expander.source


def definitions(tree: Root, source: Source, folder: Path | None = None) -> dict[str, Definition]:
    """The blocks that ``tree`` and the files it includes define, by name. Raises ConfigError."""
    expander = _Expander(source, KEYWORDS, folder, Settings())
    expander.walk(tree, source)
    return {name: definition for name, (definition, _) in expander.blocks.items()}


class _Expander:
    """One walk over the files; ``out`` collects the plain fields, ``blocks`` the definitions."""

    def __init__(
        self,
        source: Source,
        keywords: frozenset[str],
        folder: Path | None,
        settings: Settings,
    ) -> None:
        self.out: list[Field] = []
        self.source = ExpandedSource(source.name, source.text)
        self._keywords = keywords
        self._includes = Includes(source.name, folder)
        self._settings = settings
        self._copier = Copier()
        self.blocks: dict[str, tuple[Definition, int]] = {}
        self._names = Names()
        self._globals = Variables({}, self._names)
        self._given: dict[str, int] = {}  # where each of the file's variables stands
        self._active: list[str] = []  # blocks whose uses we are inside of
        self._rules: list[Field] = []  # include and exclude rules of the uses around
        self._layers = 0
        self._steps = 0

    def walk(self, tree: Block, source: Source) -> None:
        """The main file; ConfigError for what cannot be expanded."""
        try:
            self.file(tree, self.source.add(source))
        except ExpansionError as error:
            problem = Problem(max(error.offset, 0), error.message, error.related)
            raise ConfigError(problem.fault(self.source)) from None

    def file(self, tree: Block, frame: Frame) -> None:
        """The fields of a whole file."""
        for part in tree.fields:
            if part.name not in self._keywords or part.name == "repeat":
                self._body([part], frame.base, self._globals, self._names)
            elif part.name == "block":
                self._define(part, frame)
            elif part.name == "with":
                self._set(part, frame.base)
            else:
                self._include(part, frame.base)

    def _define(self, part: Field, frame: Frame) -> None:
        for value in part.values:
            if not isinstance(value, Block):
                raise ExpansionError(
                    "a block is defined as block { name: ... }", frame.base + part.offset
                )
            definition = define(value, frame.source, frame.base)
            offset = frame.base + value.offset
            if definition.name in self.blocks:
                first = (("it is first defined here", self.blocks[definition.name][1]),)
                raise ExpansionError(f"block {definition.name!r} is defined twice", offset, first)
            self.blocks[definition.name] = (definition, offset)

    def _set(self, part: Field, base: int) -> None:
        """The file's own variables, which settings may override."""
        for named in named_values(part, base):
            name, offset = named.name, base + named.offset
            self._settings.known.setdefault(name, None)
            if name in self._given:
                raise twice(named, base, self._given[name])
            self._given[name] = offset
            default = None
            if not is_required(named):
                default = self._copier.evaluate(value_of(named), base, self._globals)
            elif name not in self._settings:
                raise ExpansionError(f"variable {name!r} must be set: --set {name}=...", offset)
            if name in self._settings:
                value = from_python(self._settings[name], default)
                check_kind(name, value, default, offset)
                default = value
            self._globals[name] = default

    def _include(self, part: Field, base: int) -> None:
        offset = base + part.offset
        for value in part.values:
            name = self._copier.evaluate(value, base, self._globals)
            if type(name) is not str:
                raise ExpansionError(
                    f"'include' needs a file's name in quotes, got {show(name)}", offset
                )
            with located(base + value.offset):
                opened = self._includes.open(name)
            if opened is not None:
                source, tree = opened
                self.file(tree, self.source.add(source, offset))
                self._includes.close()

    def _body(self, fields: list[Field], base: int, variables: Variables, names: Names) -> None:
        """Fields at the top of a file, in a block or in a repetition."""
        for part in fields:
            if part.name == "layer":
                for value in part.values:
                    self._layer(part, value, base, variables, names)
            elif part.name not in self._keywords:
                copy = self._copier.field(part, base, variables)
                if copy is not None:
                    self.out.append(copy)
            elif part.name == "repeat":
                for value in part.values:
                    self._repeat(part, value, base, variables, names)
            else:
                raise ExpansionError(
                    f"{part.name!r} stands at the top of a file"
                    + (" or first in a block or repetition" if part.name == "with" else ""),
                    base + part.offset,
                )

    def _step(self, offset: int) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ExpansionError(f"takes more than {MAX_STEPS:,} uses and turns to expand", offset)

    def _repeat(
        self, part: Field, value: Value, base: int, variables: Variables, names: Names
    ) -> None:
        offset = base + part.offset
        if not isinstance(value, Block):
            raise ExpansionError("must be repeat { with { i: [1..4] } layer { ... } }", offset)
        headers, body = split(value.fields, "with")
        named = [inner for header in headers for inner in named_values(header, base)]
        walked = self._walked(named, base, variables)
        if not walked:
            raise ExpansionError("'repeat' needs a list to walk, as in with { i: [1..4] }", offset)
        lengths = {name: len(items) for name, items in walked.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ExpansionError(f"lists walked together must be equally long: {found}", offset)
        source = self.source.frame(base).source
        for turn in range(next(iter(lengths.values()))):
            self._step(offset)
            frame = self.source.add(source, offset, TURN)
            inner = Variables(variables, names)
            values: dict[str, Variable] = {}
            frame.values = values
            for parameter in named:
                name = parameter.name
                if name in walked:
                    values[name] = walked[name][turn]
                else:
                    values[name] = self._copier.evaluate(value_of(parameter), frame.base, inner)
                inner[name] = values[name]
            self._body(body, frame.base, inner, names)

    def _walked(
        self, named: list[Field], base: int, variables: Variables
    ) -> dict[str, list[Variable]]:
        """The lists among a repetition's values; what depends on a turn's values is none."""
        seen: dict[str, int] = {}
        walked: dict[str, list[Variable]] = {}
        for parameter in named:
            if parameter.name in seen:
                raise twice(parameter, base, seen[parameter.name])
            seen[parameter.name] = base + parameter.offset
            try:
                value = self._copier.evaluate(value_of(parameter), base, variables)
            except ExpansionError:
                if parameter.listed:
                    raise
                continue  # it will be evaluated, and refused if it must be, in each turn
            if isinstance(value, list):
                walked[parameter.name] = value
        return walked

    def _layer(
        self, part: Field, value: Value, base: int, variables: Variables, names: Names
    ) -> None:
        offset = base + part.offset
        if not isinstance(value, Block):
            raise ExpansionError("'layer' must be a block in braces", offset)
        headers, fields = split(value.fields, "with")
        copied = (self._copier.field(inner, base, variables) for inner in fields)
        copies = [copy for copy in copied if copy is not None]
        type_name = single(copies, "type")
        if type_name in self.blocks:
            definition = self.blocks[type_name][0]
            title = f"{type_name} {single(copies, 'name')}".strip()
            frame = self.source.add(definition.source, offset, title)
            use = Use(definition, frame, copies, headers, base, offset, self._copier)
            self._use(use, variables, names)
            return
        if headers:
            hint = nearest(type_name, self.blocks)
            raise ExpansionError(
                f"there is no block {type_name!r}, and only blocks take 'with'{hint}", offset
            )
        self._layers += 1
        if self._layers > MAX_LAYERS:
            raise ExpansionError(f"expands to more than {MAX_LAYERS:,} layers", offset)
        self._emit(copies, offset, names)

    def _emit(self, copies: list[Field], offset: int, names: Names) -> None:
        """A plain layer: its names resolved, the rules of the uses around it added."""
        layer = Block(offset)
        layer.fields = copies
        first: Blob | None = None
        for copy in copies:
            if copy.name == "name":
                _rename(copy, names.layer)
            elif copy.name == "bottom":
                _rename(copy, names.bottom)
            elif copy.name == "top":
                _rename(copy, names.top)
                if first is None and copy.values:
                    value = copy.values[0]
                    if isinstance(value, Scalar) and isinstance(value.content, str):
                        first = Blob(value.content)
        if self._rules:
            rules = within([copy for copy in copies if copy.name in RULES], self._rules)
            if rules is None:
                return  # it would never be part of the net
            layer.fields = [copy for copy in copies if copy.name not in RULES] + rules
        if first is not None:
            names.last = first
        self.out.append(Field("layer", offset, [layer]))

    def _use(self, use: Use, around: Variables, outer: Names) -> None:
        """Put the body of a block in place of a layer that has its name as type."""
        self._step(use.offset)
        definition = use.definition
        if definition.name in self._active:
            way = " uses ".join([*self._active, definition.name])
            raise ExpansionError(f"block {definition.name!r} uses itself: {way}", use.offset)
        if len(self._active) >= MAX_NESTING:
            raise ExpansionError(f"blocks are nested more than {MAX_NESTING} deep", use.offset)
        names, variables = use.open(outer, around, self._globals)
        outer_rules = self._rules
        rules = within([copy for copy in use.copies if copy.name in RULES], outer_rules)
        if rules is None:
            return
        self._rules = rules
        self._active.append(definition.name)
        self._body(definition.body, use.frame.base, variables, names)
        self._active.pop()
        self._rules = outer_rules
        outer.last = use.result(names, variables)


def _rename(part: Field, rename: Callable[[str], str]) -> None:
    """Replace the names that a copied field holds; what is no text is left to the schema."""
    for value in part.values:
        if isinstance(value, Scalar) and value.kind == "string" and isinstance(value.content, str):
            try:
                value.content = rename(value.content)
            except ExpansionError as error:
                error.offset = value.offset
                raise
