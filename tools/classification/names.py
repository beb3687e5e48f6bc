"""What the classes of a net are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...proto.errors import DataError

#: What new writes beside a net, and what is looked for beside a model.
LABELS = "labels.txt"


def class_names(path: str, classes: int) -> list[str]:
    """The names in a file, a line each; numbers without a file. DataError if they do not fit."""
    if not path:
        return [str(number) for number in range(classes)]
    names = _read(Path(path), "--labels ")
    if len(names) != classes:
        raise DataError(f"--labels {path}: has {len(names)} names, the net {classes} classes")
    return names


def found_names(
    path: str, classes: int, known: Sequence[str], places: Iterable[str | Path]
) -> list[str]:
    """The names in ``path`` if one is given, else those ``known``, else those of the first of the
    folders ``places`` that has a labels.txt for as many classes, else numbers."""
    if path:
        return class_names(path, classes)
    if len(known) == classes:
        return list(known)
    for place in places:
        file = Path(place) / LABELS
        if file.is_file() and len(names := _read(file)) == classes:
            return names
    return class_names("", classes)


def _read(path: Path, flag: str = "") -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{flag}{path}: {reason}") from None
