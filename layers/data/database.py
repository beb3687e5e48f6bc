"""Databases of Datum records, whatever their format."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ...proto import caffe_pb2
from ...proto.errors import DataError
from .leveldb_reader import LevelDatabase
from .lmdb_reader import LmdbDatabase, is_lmdb

logger = logging.getLogger(__name__)


class Database(Protocol):
    """A read-only store of values in the order of their keys."""

    path: str

    def __len__(self) -> int:
        """Number of records."""
        ...

    def records(self, start: bytes = b"") -> Iterator[tuple[memoryview, memoryview]]:
        """Key and value of each record in key order, from the first key not below ``start``."""
        ...

    def fingerprint(self) -> str:
        """A text that changes when the records may have changed."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...


def open_database(
    path: str | Path, backend: int = caffe_pb2.DataParameter.LMDB, name: str = ""
) -> Database:
    """The database at ``path``. The format is recognised; ``backend`` only says what is expected.

    A wrong ``backend`` earns a warning (``name`` is the layer's), because LEVELDB is the default of
    the schema and easily forgotten. DataError for a path that is no database.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such database")
    lmdb = is_lmdb(path)
    stated = caffe_pb2.DataParameter.DB.Name(backend)
    found = "LMDB" if lmdb else "LEVELDB"
    if not lmdb and not (path / "CURRENT").is_file():
        raise DataError(
            f"{path}: this is no database: it has neither data.mdb (LMDB) nor CURRENT (LevelDB)"
        )
    if found != stated:
        prefix = f"layer {name!r}: " if name else ""
        logger.warning("%s%s is of backend %s, not %s as stated", prefix, path, found, stated)
    return LmdbDatabase(path) if lmdb else LevelDatabase(path)


def open_any(path: str | Path) -> Database:
    """The database at ``path``, of whatever format; DataError for a path that is none."""
    lmdb = is_lmdb(path)
    return open_database(
        path, caffe_pb2.DataParameter.LMDB if lmdb else caffe_pb2.DataParameter.LEVELDB
    )
