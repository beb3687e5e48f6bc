"""LevelDB databases that we write: read back, and held against what LevelDB itself wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cortado.layers.data import leveldb_writer
from cortado.layers.data.crc32c import crc32c, masked
from cortado.layers.data.database import open_any
from cortado.layers.data.incomplete import MARKER
from cortado.layers.data.leveldb_writer import LevelWriter
from cortado.proto.errors import ConfigError, DataError, ResourceError
from cortado.proto.wire import read_varint, varint

GOLDEN = Path(__file__).parents[1] / "goldens/data/files/raw_table_leveldb"


def content(path: Path) -> list[tuple[bytes, bytes]]:
    return [(bytes(key), bytes(value)) for key, value in open_any(path).records()]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        # The examples of RFC 3720, appendix B.4, and the customary check value.
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksums_are_those_of_the_standard(data: bytes, wanted: int) -> None:
    assert crc32c(data) == wanted


@pytest.mark.parametrize("size", [4, 127, 128, 129, 257, 5000, 70_001])
def test_checksums_of_long_data_are_those_of_one_byte_after_the_other(size: int) -> None:
    data = bytes(number * 37 % 251 for number in range(size))
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_checksums_are_those_that_leveldb_stored() -> None:
    table = (GOLDEN / "000005.ldb").read_bytes()
    # The footer says where the index is; its checksum, of block and type, follows it.
    footer = table[-48:]
    _, position = read_varint(footer, 0)
    _, position = read_varint(footer, position)
    offset, position = read_varint(footer, position)
    end = offset + read_varint(footer, position)[0] + 1
    assert masked(table[offset:end]) == struct.unpack_from("<I", table, end)[0]
    # So does the one of a manifest's first record, before its length and type.
    manifest = (GOLDEN / "MANIFEST-000004").read_bytes()
    checksum, length = struct.unpack_from("<IH", manifest)
    assert masked(manifest[6 : 7 + length]) == checksum


@pytest.mark.parametrize(("count", "size"), [(1, 0), (3, 10), (1000, 30), (40, 5000)])
def test_what_is_written_is_read_again(
    count: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_SIZE", 20_000)
    records = [
        (b"%08d_%s" % (number, b"x" * (number % 5)), bytes([number % 256]) * (size + number % 7))
        for number in range(count)
    ]
    with LevelWriter(tmp_path / "db") as writer:
        for key, value in records:
            writer.put(key, value)
        assert (tmp_path / "db" / MARKER).exists()
        assert writer.count == count
    assert not (tmp_path / "db" / MARKER).exists()
    assert content(tmp_path / "db") == records
    tables = list((tmp_path / "db").glob("*.ldb"))
    assert len(tables) == 1 + sum(len(key + value) for key, value in records) // 21_000


def test_a_manifest_longer_than_a_block_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_SIZE", 1)
    monkeypatch.setattr(leveldb_writer.os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(leveldb_writer, "_BLOCK_SIZE", 1)
    records = [(b"%0200d" % number, b"value") for number in range(170)]
    with LevelWriter(tmp_path / "db") as writer:
        for key, value in records:
            writer.put(key, value)
    assert (tmp_path / "db/MANIFEST-000001").stat().st_size > 2 * 32768
    assert content(tmp_path / "db") == records


def test_keys_must_ascend_and_what_is_unfinished_is_refused(tmp_path: Path) -> None:
    def write() -> None:
        with LevelWriter(tmp_path / "db") as writer:
            writer.put(b"b", b"")
            writer.put(b"a", b"")

    with pytest.raises(DataError, match=r"'a' comes after 'b'"):
        write()
    (tmp_path / "db/CURRENT").write_text("MANIFEST-000001\n")
    with pytest.raises(DataError, match="incomplete"):
        open_any(tmp_path / "db")
    with pytest.raises(ConfigError, match="unfinished"):
        LevelWriter(tmp_path / "db")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leveldb_writer.os, "fsync", full)

    def write() -> None:
        with LevelWriter(tmp_path / "db") as writer:
            writer.put(b"a", b"")

    with pytest.raises(ResourceError, match=r"000002\.ldb.*No space left"):
        write()
    assert (tmp_path / "db" / MARKER).exists()


def test_numbers_of_seven_bits() -> None:
    for number in (0, 1, 127, 128, 300, 2**35):
        assert read_varint(varint(number), 0) == (number, len(varint(number)))
    with pytest.raises(ValueError, match="cut off"):
        read_varint(b"\x80", 0)
