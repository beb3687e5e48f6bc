"""Reading LevelDB databases: tables and write-ahead logs, merged in the order of their keys.

Source: LevelDB's documentation (doc/table_format.md, doc/log_format.md, doc/impl.md). Nothing is
ever written, unlike by LevelDB itself, which compacts what it opens. Checksums are not verified;
sizes and structure are.
"""

from __future__ import annotations

import heapq
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from ...proto.errors import DataError
from ...proto.wire import read_varint
from . import incomplete
from .snappy import decompress
from .stamps import stamp

_BLOCK = 32768
_LOG_HEADER = 7
_FULL, _FIRST, _LAST = 1, 2, 4
_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_VALUE = 1
T = TypeVar("T")
#: Key, minus sequence number (the newest first), kind and value.
Entry = tuple[bytes, int, int, memoryview]


@dataclass(frozen=True, slots=True)
class _Table:
    level: int
    number: int
    size: int
    smallest: bytes
    largest: bytes


@dataclass(slots=True)
class _Version:
    """What a manifest says: the tables in use, and the first log that is not yet in them."""

    tables: dict[tuple[int, int], _Table] = field(default_factory=dict)
    log_number: int = 0


class LevelDatabase:
    """A read-only LevelDB. Values are views of the mapped files, or of decompressed blocks."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._folder = Path(path)
        self._maps: dict[Path, memoryview] = {}
        incomplete.refuse(path, self._folder)
        version = _guarded(self._folder / "CURRENT", self._read_version)
        self._tables = sorted(version.tables.values(), key=lambda t: (t.level, t.smallest))
        for table in self._tables:
            self._check_size(table)
        self._log = sorted(self._read_logs(version.log_number))
        if next(iter(self.records()), None) is None:
            raise DataError(f"{self.path}: the LevelDB is empty; it must have at least one record")

    def __len__(self) -> int:
        return sum(1 for _ in self.records())

    def records(self, start: bytes = b"") -> Iterator[tuple[memoryview, memoryview]]:
        """Key and value of each record in key order, from the first key not below ``start``."""
        tables = [table for table in self._tables if table.largest >= start]
        runs = [self._entries(table) for table in tables if table.level == 0]
        for level in sorted({table.level for table in tables} - {0}):
            # The tables of a deeper level do not overlap, so that one is open at a time.
            inside = (self._entries(table) for table in tables if table.level == level)
            runs.append(chain.from_iterable(inside))
        last: bytes | None = None
        for key, _, kind, value in heapq.merge(*runs, iter(self._log), key=lambda e: e[:2]):
            if key == last or key < start:
                continue
            last = key
            if kind == _VALUE:
                yield memoryview(key), value

    def fingerprint(self) -> str:
        """A text that changes when the records may have changed."""
        kept = (".ldb", ".sst", ".log")
        files = sorted(path for path in self._folder.iterdir() if path.suffix in kept)
        return " ".join(map(stamp, files))

    def close(self) -> None:
        """Forget the mapped files; they are unmapped when no record refers to them any more."""
        self._maps.clear()

    def _read_version(self) -> _Version:
        name = (self._folder / "CURRENT").read_text().strip()
        version = _Version()
        for record in _log_records(self._map(self._folder / name)):
            _apply_edit(version, record)
        return version

    def _check_size(self, table: _Table) -> None:
        path = self._table_path(table.number)
        size = path.stat().st_size if path.exists() else 0
        if size != table.size:
            raise DataError(
                f"{path}: the table is missing or truncated: it has {size:,} bytes, "
                f"the manifest says {table.size:,}"
            )

    def _table_path(self, number: int) -> Path:
        older = self._folder / f"{number:06d}.sst"
        return older if older.exists() else self._folder / f"{number:06d}.ldb"

    def _map(self, path: Path) -> memoryview:
        """The content of a file, mapped once."""
        if path not in self._maps:
            with open(path, "rb") as file:
                empty = not file.seek(0, 2)
                content = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[path] = memoryview(content)
        return self._maps[path]

    def _read_logs(self, first: int) -> Iterator[Entry]:
        """The records of the logs that are in no table yet."""
        for path in sorted(self._folder.glob("*.log")):
            if path.stem.isdigit() and int(path.stem) >= first:
                yield from _guarded(path, partial(self._log_list, path))

    def _log_list(self, path: Path) -> list[Entry]:
        return list(self._log_entries(path))

    def _log_entries(self, path: Path) -> Iterator[Entry]:
        for record in _log_records(self._map(path)):
            sequence, count = struct.unpack_from("<QI", record)
            position = 12
            for number in range(count):
                kind = record[position]
                key, position = _bytes(record, position + 1)
                value = memoryview(b"")
                if kind == _VALUE:
                    value, position = _bytes(record, position)
                yield bytes(key), -(sequence + number), kind, value

    def _entries(self, table: _Table) -> Iterator[Entry]:
        path = self._table_path(table.number)
        content = self._map(path)
        for handle in _guarded(path, partial(_index, content)):
            yield from _guarded(path, partial(_block_entries, content, handle))


def _guarded(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` returns; its failures as a DataError that names the file."""
    try:
        return read()
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise DataError(f"{path}: this file of the LevelDB is damaged: {error}") from None
    except OSError as error:
        place = error.filename or path
        raise DataError(f"{place}: cannot be read: {error.strerror}") from None


def _bytes(data: memoryview, position: int) -> tuple[memoryview, int]:
    """A length and as many bytes, and the position after them."""
    length, position = read_varint(data, position)
    if position + length > len(data):
        raise ValueError("a value ends too early")
    return data[position : position + length], position + length


def _log_records(content: memoryview) -> Iterator[memoryview]:
    """The records of a log; what was cut off at its end by a crash is left out, as by LevelDB."""
    parts: list[memoryview] = []
    position = 0
    while position + _LOG_HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _LOG_HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += _LOG_HEADER
        if kind == 0 or position + length > len(content):
            return
        part = content[position : position + length]
        position += length
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(part)
        if kind == _FULL:
            yield part
        elif kind == _LAST:
            yield memoryview(b"".join(parts))


def _apply_edit(version: _Version, edit: memoryview) -> None:
    """Apply one record of a manifest; the tags are LevelDB's."""
    position = 0
    while position < len(edit):
        tag, position = read_varint(edit, position)
        if tag == 1:
            name, position = _bytes(edit, position)
            if bytes(name) != b"leveldb.BytewiseComparator":
                raise ValueError(f"keys are ordered by {bytes(name)!r}, which is not supported")
        elif tag in (2, 3, 4, 9):
            number, position = read_varint(edit, position)
            if tag == 2:
                version.log_number = number
        elif tag == 5:
            _, position = read_varint(edit, position)
            _, position = _bytes(edit, position)
        elif tag in (6, 7):
            level, position = read_varint(edit, position)
            number, position = read_varint(edit, position)
            if tag == 6:
                version.tables.pop((level, number), None)
                continue
            size, position = read_varint(edit, position)
            smallest, position = _bytes(edit, position)
            largest, position = _bytes(edit, position)
            keys = bytes(smallest[:-8]), bytes(largest[:-8])
            version.tables[level, number] = _Table(level, number, size, *keys)
        else:
            raise ValueError(f"unknown tag {tag}")


def _index(content: memoryview) -> list[tuple[int, int]]:
    """Offset and size of each data block of a table."""
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack_from("<Q", footer, 40)[0] != _MAGIC:
        raise ValueError("it does not end like a table")
    _, position = read_varint(footer, 0)
    _, position = read_varint(footer, position)
    offset, position = read_varint(footer, position)
    size, _ = read_varint(footer, position)
    handles = []
    for _, value in _block_items(_block(content, (offset, size))):
        start, position = read_varint(value, 0)
        handles.append((start, read_varint(value, position)[0]))
    return handles


def _block(content: memoryview, handle: tuple[int, int]) -> memoryview:
    offset, size = handle
    if offset + size + 5 > len(content):
        raise ValueError("a block ends beyond the file")
    block, kind = content[offset : offset + size], content[offset + size]
    if kind not in (0, 1):
        raise ValueError(f"compression {kind} is not supported")
    return memoryview(decompress(block)) if kind else block


def _block_items(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a block; keys share their beginning with the one before."""
    restarts = struct.unpack_from("<I", block, len(block) - 4)[0]
    end = len(block) - 4 * (restarts + 1)
    key, position = b"", 0
    while position < end:
        shared, position = read_varint(block, position)
        own, position = read_varint(block, position)
        length, position = read_varint(block, position)
        key = key[:shared] + bytes(block[position : position + own])
        position += own
        if position + length > end:
            raise ValueError("a value ends beyond its block")
        yield key, block[position : position + length]
        position += length


def _block_entries(content: memoryview, handle: tuple[int, int]) -> list[Entry]:
    entries = []
    for key, value in _block_items(_block(content, handle)):
        trailer = int.from_bytes(key[-8:], "little")
        entries.append((key[:-8], -(trailer >> 8), trailer & 255, value))
    return entries
