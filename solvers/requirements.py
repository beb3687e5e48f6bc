"""What a solver's fields must satisfy, as data: rules, policies and the solver list theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..proto import caffe_pb2
from ..proto.errors import Fault
from ..proto.positions import Document

SolverDocument = Document[caffe_pb2.SolverParameter]


@dataclass(frozen=True, slots=True)
class Requirement:
    """``field`` must hold ``need`` ("at least 0"), which ``accepts`` decides.

    An ``optional`` field may be absent: its default, or the absence, is fine. Any field may be
    where the one called ``instead`` is given.
    """

    field: str
    need: str
    accepts: Callable[[Any], bool]
    optional: bool = False
    instead: str = ""

    def fault(self, document: SolverDocument, because: str = "") -> Fault | None:
        """The fault of ``document``, or None; ``because`` names what asks for the field."""
        solver = document.message
        reason = f" ({because} needs it)" if because else ""
        if not is_set(solver, self.field):
            if self.optional or (self.instead and is_set(solver, self.instead)):
                return None
            return Fault(
                f"{self.field} must be {self.need}, but it is not set{reason}", place(document)
            )
        value = getattr(solver, self.field)
        if self.accepts(value):
            return None
        shown = f'"{value}"' if isinstance(value, str) else f"{value:g}"
        return Fault(
            f"{self.field} must be {self.need}, got {shown}{reason}", place(document, self.field)
        )


def is_set(solver: caffe_pb2.SolverParameter, field: str) -> bool:
    """Whether the solver gives ``field`` a value (at least one, if it is repeated)."""
    if solver.DESCRIPTOR.fields_by_name[field].is_repeated:
        return len(getattr(solver, field)) > 0
    return solver.HasField(field)


def place(document: SolverDocument, field: str = "") -> Any:
    """The Location of ``field`` in the solver's text, None if it was no text."""
    return document.root.find(field).location if document.root else None


def given(field: str) -> Requirement:
    return Requirement(field, "given", lambda value: True)


def at_least(field: str, low: float, *, optional: bool = False) -> Requirement:
    return Requirement(field, f"at least {low:g}", lambda value: value >= low, optional)


def positive(field: str, *, optional: bool = False, instead: str = "") -> Requirement:
    return Requirement(field, "greater than 0", lambda value: value > 0, optional, instead)


def fraction(field: str, *, optional: bool = True) -> Requirement:
    """From 0 up to, but not including, 1."""
    return Requirement(field, "at least 0 and below 1", lambda value: 0 <= value < 1, optional)


def one_of(field: str, *values: str) -> Requirement:
    need = " or ".join(f'"{value}"' for value in values)
    return Requirement(field, need, lambda value: value in values, optional=True)


def zero(field: str, hint: str = "") -> Requirement:
    """``hint`` says who takes another value."""
    need = f"0; {hint}" if hint else "0"
    return Requirement(field, need, lambda value: value == 0, optional=True)


def faults(
    requirements: Iterable[Requirement], document: SolverDocument, because: str = ""
) -> Iterator[Fault]:
    """All faults of ``document`` against ``requirements``."""
    for requirement in requirements:
        fault = requirement.fault(document, because)
        if fault is not None:
            yield fault
