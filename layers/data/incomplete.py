"""The mark of a database that is being written, or whose writing did not end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from ...proto.errors import ConfigError, DataError

#: Lies in the folder of a database while it is written.
MARKER = "conversion.incomplete"


def begin(folder: Path, job: str = "", resume: bool = False) -> None:
    """Make the folder of a database and mark it.

    ``job`` is any text that says what is written. The folder must not exist, unless ``resume`` is
    asked for and an unfinished database of the same job is in it; ConfigError otherwise.
    """
    marker = folder / MARKER
    try:
        folder.mkdir(mode=0o755)
        marker.write_text(job, encoding="utf-8")
    except FileExistsError:
        unfinished = marker.is_file()
        if not (resume and unfinished):
            state = "an unfinished database is there" if unfinished else "it exists already"
            raise ConfigError(f"{folder}: {state}; delete it or give another name") from None
        if marker.read_text(encoding="utf-8") != job:
            raise ConfigError(
                f"{folder}: the unfinished database is of another conversion "
                "(other images or flags); delete it or give another name"
            ) from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be created: {error.strerror}") from None


def end(folder: Path) -> None:
    """Take the mark away: the database is complete."""
    (folder / MARKER).unlink()


def abandon(folder: Path, files: Iterable[str] = ()) -> None:
    """Take away a database in which nothing was stored: the mark, the ``files`` and the folder.

    What somebody else put into the folder stays, and the folder with it.
    """
    for name in (*files, MARKER):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def is_marked(folder: Path) -> bool:
    """Whether the database in ``folder`` is not complete."""
    return (folder / MARKER).exists()


def refuse(path: str | Path, folder: Path) -> None:
    """DataError naming ``path`` if the database in ``folder`` is not complete."""
    if is_marked(folder):
        raise DataError(
            f"{path}: the database is incomplete, its conversion did not end "
            f"({MARKER} is still there); convert again"
        )
