"""Files that appear complete or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: What the names of half-written files end in; leftovers of a killed process can be found by it.
TEMPORARY_SUFFIX = ".partial"


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into; ``path`` is replaced by it when the block ends without an error."""
    with temporary_beside(path) as temporary, open(temporary, "xb") as file:
        yield file


@contextlib.contextmanager
def temporary_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new name next to ``path``; the file made there takes the place of ``path`` at the end.

    It is flushed to the disk before it is renamed, and removed if the block raises.
    """
    target = Path(path)
    name = f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    temporary = target.with_name(name)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some file systems cannot flush folders
        _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
