"""Values that are given from outside to the variables of files: ``--set width=32``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import ConfigError, Source, nearest
from ..syntax import read
from .copies import Copier
from .definitions import value_of
from .names import Names
from .values import ExpansionError, Variables


class Settings(dict[str, object]):
    """Values by the names of variables; ``known`` are the variables that files turned out to have.

    A solver and its nets share one ``known``: a value may be meant for any of them.
    """

    __slots__ = ("known",)

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        super().__init__(values or {})
        self.known: dict[str, None] = getattr(values, "known", {})

    def check(self, name: str) -> None:
        """Refuse values for variables that no file has; ``name`` says what was read."""
        for unknown in self.keys() - self.known.keys():
            hint = nearest(unknown, self.known)
            known = f" (it has {', '.join(self.known)})" if self.known else ""
            raise ConfigError(f"{name}: has no variable {unknown!r}{hint or known}")


def parse_settings(assignments: Iterable[str]) -> Settings:
    """The settings of assignments such as ``width=32``, ``units=[3, 4]`` or ``train=a/b_lmdb``.

    A value is read as it would be in a prototxt; what is none there is taken as text.
    """
    settings = Settings()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ConfigError(f"--set {assignment}: must be name=value")
        settings[name] = _parse(text)
    return settings


def _parse(text: str) -> object:
    tree, problems = read(Source("--set", f"value: {text}"))
    if problems or len(tree.fields) != 1 or not tree.fields[0].values:
        return text.strip()
    try:
        return Copier().evaluate(value_of(tree.fields[0]), 0, Variables({}, Names()))
    except ExpansionError as error:
        raise ConfigError(f"--set value {text!r}: {error.message}") from None
