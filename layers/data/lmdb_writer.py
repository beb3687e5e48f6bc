"""Writing LMDB environments whose map grows, and which say so when they are incomplete."""

from __future__ import annotations

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import lmdb

from ...proto.errors import DataError, ResourceError
from . import incomplete

#: Records between two commits, as in Caffe, unless they are large.
COMMIT_EVERY = 1000
_COMMIT_BYTES = 2**25
_FILES = ("data.mdb", "lock.mdb")
#: Addresses, not memory or disk.
_FIRST_MAP_SIZE = 2**30


class LmdbWriter:
    """Writes a new LMDB; use it as a context manager.

    The folder must not exist, unless ``resume`` is asked for and an unfinished database of the same
    ``job`` (any text that says what is written) is there: then :attr:`last_key` is the last record
    that was committed, and writing goes on after it.

    While it is written it is marked incomplete (:mod:`incomplete`), which only a successful end
    undoes; an end by an error before anything was put leaves no folder. Records are committed every
    1000 or 32 MiB and when the writer ends. A full map grows to twice its size and the records
    since the last commit are written again.
    """

    def __init__(self, path: str | Path, *, job: str = "", resume: bool = False) -> None:
        self.path = Path(path)
        self.count = 0
        #: The last key that an interrupted writer left; None in a new database.
        self.last_key: bytes | None = None
        incomplete.begin(self.path, job, resume)
        self._waiting: list[tuple[bytes, bytes]] = []
        self._waiting_bytes = 0
        self._environment = lmdb.open(
            str(self.path), map_size=_FIRST_MAP_SIZE, sync=False, meminit=False
        )
        self._flusher = ThreadPoolExecutor(1)
        self._flushing: Future[None] | None = None
        self.last_key, self.count = self._committed()

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
                self._flush()
        finally:
            self._flusher.shutdown()
            self._environment.close()
        if error is None:
            incomplete.end(self.path)
        elif not self.count:
            incomplete.abandon(self.path, _FILES)

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; DataError for a key that LMDB cannot hold."""
        longest = self._environment.max_key_size()
        if not 0 < len(key) <= longest:
            raise DataError(
                f"{self.path}: the key {key.decode(errors='backslashreplace')!r} has {len(key)} "
                f"bytes, LMDB allows 1 to {longest}"
            )
        self._waiting.append((key, value))
        self._waiting_bytes += len(value)
        self.count += 1
        if len(self._waiting) == COMMIT_EVERY or self._waiting_bytes >= _COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what was put since the last commit."""
        while self._waiting:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._waiting:
                        transaction.put(key, value)
                self._waiting.clear()
                self._waiting_bytes = 0
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._failure(error) from None
        # The disk gets it while the next records are made, so that the end has little to wait for.
        if self._flushing is None or self._flushing.done():
            self._flushing = self._flusher.submit(self._environment.sync, True)

    def _flush(self) -> None:
        """Wait until everything is on the disk."""
        try:
            if self._flushing is not None:
                self._flushing.result()
            self._environment.sync(True)
        except lmdb.Error as error:
            raise self._failure(error) from None

    def _failure(self, error: lmdb.Error) -> DataError | ResourceError:
        if os.strerror(errno.ENOSPC) in str(error):
            return ResourceError(f"{self.path}: the disk is full")
        return DataError(f"{self.path}: cannot be written: {error}")
