"""Writing LMDB environments whose map grows, and which say so when they are incomplete."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

import lmdb

from ...proto.errors import ConfigError, DataError, ResourceError

#: Lies in the folder of a database while it is written.
INCOMPLETE = "conversion.incomplete"
#: Records between two commits, as in Caffe.
COMMIT_EVERY = 1000
_FIRST_MAP_SIZE = 2**26


class LmdbWriter:
    """Writes a new LMDB; use it as a context manager.

    The folder must not exist, unless ``resume`` is asked for and an unfinished database of the same
    ``job`` (any text that says what is written) is there: then :attr:`last_key` is the last record
    that was committed, and writing goes on after it.

    While it is written it holds a file ``conversion.incomplete``, which only a successful end
    removes: readers refuse a database that has it. Records are committed every 1000 and when the
    writer ends. A full map grows to twice its size and the records since the last commit are
    written again.
    """

    def __init__(self, path: str | Path, *, job: str = "", resume: bool = False) -> None:
        self.path = Path(path)
        self.count = 0
        #: The last key that an interrupted writer left; None in a new database.
        self.last_key: bytes | None = None
        self._create(job, resume)
        self._waiting: list[tuple[bytes, bytes]] = []
        self._environment = lmdb.open(
            str(self.path), map_size=_FIRST_MAP_SIZE, sync=False, meminit=False
        )

        self.last_key, self.count = self._committed()

    def _create(self, job: str, resume: bool) -> None:
        marker = self.path / INCOMPLETE
        try:
            self.path.mkdir(mode=0o755)
        except FileExistsError:
            unfinished = marker.is_file()
            if not (resume and unfinished):
                state = "an unfinished database is there" if unfinished else "it exists already"
                raise ConfigError(f"{self.path}: {state}; delete it or give another name") from None
            if marker.read_text(encoding="utf-8") != job:
                raise ConfigError(
                    f"{self.path}: the unfinished database is of another conversion "
                    "(other images or flags); delete it or give another name"
                ) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be created: {error.strerror}") from None
        marker.write_text(job, encoding="utf-8")

    def _committed(self) -> tuple[bytes | None, int]:
        """The last key and the number of records in the environment."""
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()
            last = bytes(cursor.key()) if cursor.last() else None
            return last, int(transaction.stat()["entries"])

    def has(self, key: bytes) -> bool:
        """Whether a record was committed."""
        with self._environment.begin() as transaction:
            return transaction.get(key) is not None

    def first_value(self) -> bytes | None:
        """The value of the first committed record."""
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()
            return bytes(cursor.value()) if cursor.first() else None

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.commit()
                self._environment.sync(True)
        finally:
            self._environment.close()
        if error is None:
            (self.path / INCOMPLETE).unlink()

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; DataError for a key that LMDB cannot hold."""
        longest = self._environment.max_key_size()
        if len(key) > longest:
            raise DataError(
                f"{self.path}: the key {key.decode(errors='backslashreplace')!r} has {len(key)} "
                f"bytes, LMDB allows {longest}"
            )
        self._waiting.append((key, value))
        self.count += 1
        if len(self._waiting) == COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Write what was put since the last commit."""
        while self._waiting:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._waiting:
                        transaction.put(key, value)
                self._waiting.clear()
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                if os.strerror(errno.ENOSPC) in str(error):
                    raise ResourceError(f"{self.path}: the disk is full") from None
                raise DataError(f"{self.path}: cannot be written: {error}") from None
