"""Writing LevelDB databases: sorted tables and the manifest that lists them.

Source: LevelDB's documentation (doc/table_format.md, doc/log_format.md, doc/impl.md). Records come
in the order of their keys, so that nothing is ever merged: each table is written once, and all lie
at the last level, which LevelDB does not compact. Blocks are not compressed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ...proto.errors import DataError, ResourceError
from ...proto.wire import varint
from . import incomplete
from .crc32c import masked

#: Bytes of a table, and of a block in it, after which the next one begins.
_TABLE_SIZE = 2**25
_BLOCK_SIZE = 4096
#: Entries of a block after which one has its key in full.
_RESTART = 16
_LOG_BLOCK = 32768
_LOG_HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LAST_LEVEL = 6
_VALUE = 1
_MAGIC = 0xDB4775248B80FB57
_MANIFEST = 1


class LevelWriter:
    """Writes a new LevelDB; use it as a context manager. Keys must come in ascending order.

    The folder must not exist. While it is written it is marked incomplete (:mod:`incomplete`); an
    error before anything was put leaves no folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0
        self._last_key: bytes | None = None
        incomplete.begin(self.path)
        self._tables: list[_Ended] = []
        self._open = _Table(_MANIFEST + 1)

    def __enter__(self) -> LevelWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            if not self.count:
                incomplete.abandon(self.path)
            return
        self._end_table()
        name = f"MANIFEST-{_MANIFEST:06d}"
        self._write(name, b"".join(_log_parts(self._edit())))
        self._write("CURRENT", f"{name}\n".encode())
        incomplete.end(self.path)

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; DataError for a key that is not above the one before."""
        if self._last_key is not None and key <= self._last_key:
            raise DataError(
                f"{self.path}: the key {key.decode(errors='backslashreplace')!r} comes after "
                f"{self._last_key.decode(errors='backslashreplace')!r}; "
                "a LevelDB is written in the order of its keys"
            )
        self._last_key = key
        self.count += 1
        # Below the key: the number of the change, and that it is a value.
        self._open.add(key + struct.pack("<Q", self.count << 8 | _VALUE), value)
        if self._open.size >= _TABLE_SIZE:
            self._end_table()

    def _end_table(self) -> None:
        table = self._open
        if table.size or table.block.count:
            self._write(f"{table.number:06d}.ldb", table.content())
            self._tables.append(table.ended())
            self._open = _Table(table.number + 1)

    def _write(self, name: str, content: bytes) -> None:
        path = self.path / name
        try:
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(f"{path}: cannot be written: {error.strerror}") from None

    def _edit(self) -> bytes:
        """The one change that the manifest describes; the tags are LevelDB's."""
        edit = [b"\x01", _sized(b"leveldb.BytewiseComparator")]
        next_file = _MANIFEST + 1 + len(self._tables)
        for tag, number in ((2, 0), (9, 0), (3, next_file), (4, self.count)):
            edit += [bytes([tag]), varint(number)]
        for table in self._tables:
            edit += [b"\x07", varint(_LAST_LEVEL), varint(table.number)]
            edit += [varint(table.size), _sized(table.first), _sized(table.last)]
        return b"".join(edit)


@dataclass(slots=True)
class _Block:
    """Entries whose keys are stored without what they share with the key before."""

    restart_every: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    count: int = 0
    restarts: list[int] = field(default_factory=list)
    last: bytes = b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.count % self.restart_every:
            pairs = enumerate(zip(self.last, key, strict=False))
            shared = next(
                (place for place, (a, b) in pairs if a != b), min(len(self.last), len(key))
            )
        else:
            self.restarts.append(self.size)
        sizes = map(varint, (shared, len(key) - shared, len(value)))
        found = [*sizes, key[shared:], value]
        self.parts += found
        self.size += sum(map(len, found))
        self.count += 1
        self.last = key

    def content(self) -> bytes:
        restarts = self.restarts or [0]
        ends = struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
        return b"".join((*self.parts, ends))


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the manifest says of a table: its number, bytes, and first and last key."""

    number: int
    size: int
    first: bytes
    last: bytes


@dataclass(slots=True)
class _Table:
    """A table in the making: blocks of records, then an index of the blocks."""

    number: int
    size: int = 0
    parts: list[bytes] = field(default_factory=list)
    first: bytes = b""
    last: bytes = b""
    block: _Block = field(default_factory=lambda: _Block(_RESTART))
    index: _Block = field(default_factory=lambda: _Block(1))

    def add(self, key: bytes, value: bytes) -> None:
        self.first = self.first or key
        self.last = key
        self.block.add(key, value)
        if self.block.size >= _BLOCK_SIZE:
            self._end_block()

    def content(self) -> bytes:
        """The whole table; nothing can be added after it."""
        if self.block.count:
            self._end_block()
        handles = self._append(_Block(1)) + self._append(self.index)
        self.parts.append(handles.ljust(40, b"\0") + struct.pack("<Q", _MAGIC))
        self.size += len(self.parts[-1])
        return b"".join(self.parts)

    def ended(self) -> _Ended:
        return _Ended(self.number, self.size, self.first, self.last)

    def _end_block(self) -> None:
        self.index.add(self.last, self._append(self.block))
        self.block = _Block(_RESTART)

    def _append(self, block: _Block) -> bytes:
        """Append a block; returns its place, as an index stores it."""
        # The zero says that the block is not compressed.
        content = block.content() + b"\0"
        place = varint(self.size) + varint(len(content) - 1)
        self.parts += [content, struct.pack("<I", masked(content))]
        self.size += len(content) + 4
        return place


def _sized(value: bytes) -> bytes:
    return varint(len(value)) + value


def _log_parts(record: bytes) -> Iterator[bytes]:
    """A record as the parts of a log, none of which crosses a block's border."""
    position, place = 0, 0
    while position < len(record) or not place:
        room = _LOG_BLOCK - place % _LOG_BLOCK - _LOG_HEADER
        part = record[position : position + room]
        begins, ends = not position, position + len(part) == len(record)
        kind = {(1, 1): _FULL, (1, 0): _FIRST, (0, 0): _MIDDLE, (0, 1): _LAST}[begins, ends]
        yield struct.pack("<IHB", masked(bytes([kind]) + part), len(part), kind) + part
        position += len(part)
        place += _LOG_HEADER + len(part)
