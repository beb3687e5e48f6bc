"""Reading LMDB environments: checked before they are mapped, shared within the process."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb

from ...proto.errors import DataError
from . import incomplete
from .stamps import stamp

logger = logging.getLogger(__name__)

_MAGIC = 0xBEEFC0DE
_PAGE_HEADER = 16
#: Magic, version, address, map size; then two databases of which the first carries the page size
#: and the second is the main one; then the last page in use and the transaction.
_META = struct.Struct("<II QQ IHH5Q IHH5Q QQ")


@dataclass(frozen=True, slots=True)
class Meta:
    """What the newest valid meta page of a data.mdb says."""

    page_size: int
    last_page: int
    entries: int
    transaction: int


class LmdbDatabase:
    """A read-only LMDB. Values are views of the mapped file, valid until :meth:`close`.

    ``path`` is the folder that holds data.mdb, or the data file itself. Several databases of one
    path, also in several nets, share one environment.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        data_file = data_file_of(path)
        meta = check(data_file)
        if meta.entries == 0:
            raise DataError(f"{self.path}: the LMDB is empty; it must have at least one record")
        incomplete.refuse(self.path, data_file.parent)
        self._environment = _shared_environment(data_file)
        self._transaction = self._environment.handle.begin(buffers=True)

    def __len__(self) -> int:
        return int(self._transaction.stat()["entries"])

    def records(self, start: bytes = b"") -> Iterator[tuple[memoryview, memoryview]]:
        """Key and value of each record in key order, from the first key not below ``start``."""
        # A generator, because it keeps this object and with it the mapped file alive.
        cursor = self._transaction.cursor()
        if cursor.set_range(start) if start else cursor.first():
            yield from cursor.iternext(keys=True, values=True)

    def all_keys(self) -> Iterator[memoryview]:
        """The keys alone, in their order."""
        cursor = self._transaction.cursor()
        if cursor.first():
            yield from cursor.iternext(keys=True, values=False)

    def get(self, key: bytes) -> memoryview | None:
        """The value of ``key``, or None."""
        return self._transaction.get(key)

    def fingerprint(self) -> str:
        """A text that changes when the records may have changed."""
        data_file = data_file_of(self.path)
        return f"{stamp(data_file)} {check(data_file).transaction}"

    def close(self) -> None:
        """End the transaction; the environment closes with its last database."""
        self._transaction.abort()


def is_lmdb(path: str | Path) -> bool:
    """Whether ``path`` is an LMDB folder, or a file with LMDB's magic number."""
    path = Path(path)
    if path.is_dir():
        return (path / "data.mdb").exists()
    try:
        with open(path, "rb") as file:
            lead = file.read(_PAGE_HEADER + 4)
    except OSError:
        return False
    return len(lead) == _PAGE_HEADER + 4 and lead[_PAGE_HEADER:] == struct.pack("<I", _MAGIC)


def data_file_of(path: str | Path) -> Path:
    """The data file of an environment; DataError if there is none."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such database")
    if path.is_file():
        return path
    data_file = path / "data.mdb"
    if data_file.is_file():
        return data_file
    if (path / "CURRENT").exists():
        raise DataError(f"{path}: this is a LevelDB, not an LMDB; set backend: LEVELDB")
    raise DataError(f"{path}: this folder is no LMDB, it has no data.mdb")


def check(data_file: Path) -> Meta:
    """The meta data of a data file; DataError if it is foreign or shorter than it says.

    Reading beyond the end of a mapped file ends the process with SIGBUS, which Python cannot catch.
    """
    try:
        with open(data_file, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            lead = file.read(_PAGE_HEADER + _META.size)
            first = _read_meta(lead)
            if first is None:
                raise DataError(f"{data_file}: this is no LMDB data file ({size:,} bytes)")
            file.seek(first.page_size)
            second = _read_meta(file.read(_PAGE_HEADER + _META.size))
    except OSError as error:
        raise DataError(f"{data_file}: cannot be read: {error.strerror}") from None
    newest = max((first, second or first), key=lambda meta: meta.transaction)
    needed = (newest.last_page + 1) * newest.page_size
    if size < needed:
        raise DataError(
            f"{data_file}: the file is truncated: it has {size:,} bytes, its header says {needed:,}"
        )
    return newest


def _read_meta(page: bytes) -> Meta | None:
    if len(page) < _PAGE_HEADER + _META.size:
        return None
    fields = _META.unpack_from(page, _PAGE_HEADER)
    if fields[0] != _MAGIC:
        return None
    page_size, main_entries, (last_page, transaction) = fields[4], fields[16], fields[-2:]
    if page_size < 512 or page_size & (page_size - 1):
        return None
    return Meta(page_size, last_page, main_entries, transaction)


class _Environment:
    """An open lmdb.Environment that closes when nobody refers to it any more."""

    def __init__(self, data_file: Path) -> None:
        self.handle = _open(data_file)

    def __del__(self) -> None:
        handle = getattr(self, "handle", None)
        if handle is not None:
            handle.close()


_environments: weakref.WeakValueDictionary[tuple[int, int, int], _Environment] = (
    weakref.WeakValueDictionary()
)
_environments_lock = threading.Lock()


def _shared_environment(data_file: Path) -> _Environment:
    """The environment of a data file: LMDB allows each only once in a process."""
    status = data_file.stat()
    # An environment must not be used on the other side of a fork, hence the process id.
    identity = (os.getpid(), status.st_dev, status.st_ino)
    with _environments_lock:
        environment = _environments.get(identity)
        if environment is None:
            environment = _Environment(data_file)
            _environments[identity] = environment
        return environment


def _open(data_file: Path) -> lmdb.Environment:
    in_folder = data_file.name == "data.mdb"
    path = str(data_file.parent if in_folder else data_file)

    def open_environment(lock: bool) -> lmdb.Environment:
        return lmdb.open(
            path, subdir=in_folder, readonly=True, create=False, lock=lock, max_readers=512
        )

    try:
        return open_environment(lock=True)
    except (lmdb.ReadonlyError, lmdb.LockError, lmdb.Error) as error:
        if not _is_refused_lock(error):
            raise DataError(f"{path}: cannot be opened as LMDB: {error}") from None
    logger.warning("%s: no permission for a lock file, reading without a lock", path)
    try:
        return open_environment(lock=False)
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be opened as LMDB: {error}") from None


def _is_refused_lock(error: Exception) -> bool:
    reasons = (errno.EACCES, errno.EROFS, errno.EPERM)
    return isinstance(error, lmdb.ReadonlyError | lmdb.LockError) or any(
        os.strerror(reason) in str(error) for reason in reasons
    )
