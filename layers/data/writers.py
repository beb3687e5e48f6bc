"""Writing databases of records, whatever their format."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

from ...proto.errors import ConfigError
from .leveldb_writer import LevelWriter
from .lmdb_writer import LmdbWriter


class DatabaseWriter(Protocol):
    """A new database, to be used as a context manager; it is complete when that ends well."""

    count: int

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; keys come in ascending order."""
        ...

    def __enter__(self) -> DatabaseWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def create_database(
    path: str | Path, backend: str = "lmdb", *, job: str = "", resume: bool = False
) -> DatabaseWriter:
    """A writer for a new database of ``backend``, lmdb or leveldb.

    ``job`` and ``resume`` are those of :class:`LmdbWriter`. ConfigError where the database exists,
    and for ``resume`` with leveldb.
    """
    if backend == "lmdb":
        return LmdbWriter(path, job=job, resume=resume)
    if resume:
        raise ConfigError(f"{path}: only the writing of an LMDB can be resumed, not of a LevelDB")
    return LevelWriter(path)
