"""LevelDB where another format is expected, and damaged ones."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from cortado.layers.data import lmdb_reader
from cortado.layers.data.database import open_database
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError


def test_a_leveldb_given_as_lmdb_is_recognised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    goldens = Path(__file__).parents[1] / "goldens/data/files"
    shutil.copytree(goldens / "raw_table_leveldb", tmp_path / "db")
    with caplog.at_level(logging.WARNING):
        database = open_database(tmp_path / "db", caffe_pb2.DataParameter.LMDB, "data")
    assert "is of backend LEVELDB, not LMDB" in caplog.text
    database.close()
    with pytest.raises(DataError, match="this is a LevelDB"):
        lmdb_reader.LmdbDatabase(tmp_path / "db")


def test_damaged_level_databases_are_refused(tmp_path: Path) -> None:
    goldens = Path(__file__).parents[1] / "goldens/data/files"
    broken = tmp_path / "broken"
    shutil.copytree(goldens / "raw_table_leveldb", broken)
    os.truncate(broken / "000005.ldb", 9000)
    with pytest.raises(DataError, match=r"000005\.ldb.*9,000 bytes"):
        open_database(broken, caffe_pb2.DataParameter.LEVELDB)
    manifest = broken / "MANIFEST-000004"
    manifest.unlink()
    with pytest.raises(DataError, match="MANIFEST-000004"):
        open_database(broken, caffe_pb2.DataParameter.LEVELDB)
