"""Include and exclude rules of uses and of the layers inside them, brought together.

A layer inside a use belongs to the net where both the rules of the use and its own are met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..tree import Block, Field, Scalar, Value, integer
from .values import ExpansionError

RULES = ("include", "exclude")
_PHASES = {"0": "TRAIN", "1": "TEST"}
#: Which of two limits holds where both are to be kept.
_LIMITS: dict[str, Callable[[int, int], int]] = {"min_level": max, "max_level": min}


def within(own: Sequence[Field], around: Sequence[Field]) -> list[Field] | None:
    """The rules of something that has rules itself, inside of what has rules too.

    None if they can never be met. ExpansionError where Caffe's rules cannot say it: includes and
    excludes do not mix.
    """
    if not own or not around:
        return [*own, *around]
    for field in own:
        other = next((each for each in around if each.name != field.name), None)
        if other is not None:
            related = ((f"{other.name!r} of the use around it", other.offset),)
            raise ExpansionError(
                f"{field.name!r} cannot be joined with {other.name!r} around it",
                field.offset,
                related,
            )
    if own[0].name == "exclude":
        return [*own, *around]
    joined = [
        _both(mine, theirs)
        for mine in (value for field in own for value in field.values)
        for theirs in (value for field in around for value in field.values)
    ]
    met = [rule for rule in joined if rule is not None]
    return [Field("include", own[0].offset, [rule]) for rule in met] or None


def _both(mine: Value, theirs: Value) -> Value | None:
    """One rule that is met where both are; None if there is no such place."""
    if not isinstance(mine, Block) or not isinstance(theirs, Block):
        return mine  # the schema will refuse what is no rule
    rule = Block(mine.offset)
    single: dict[str, int] = {}  # where in the rule each field stands that it can have only once
    for field in (*mine.fields, *theirs.fields):
        text = _text(field)
        if any(each.name == field.name and text and _text(each) == text for each in rule.fields):
            continue
        if field.name not in ("phase", *_LIMITS) or field.name not in single:
            single[field.name] = len(rule.fields)
            rule.fields.append(field)
        elif field.name == "phase":
            return None
        else:
            place = single[field.name]
            before, now = _number(rule.fields[place]), _number(field)
            if _LIMITS[field.name](before, now) == now:
                rule.fields[place] = field
    return rule


def _text(field: Field) -> str:
    """The one scalar of a field as text, phases by their names."""
    value = field.values[0] if len(field.values) == 1 else None
    if not isinstance(value, Scalar):
        return ""
    return _PHASES.get(str(value.content), str(value)) if field.name == "phase" else str(value)


def _number(field: Field) -> int:
    value = field.values[0]
    try:
        return integer(value) if isinstance(value, Scalar) else 0
    except ValueError:
        raise ExpansionError(f"{field.name!r} must be a whole number", field.offset) from None
