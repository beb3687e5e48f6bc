"""Memory stays flat over epochs, and a file that shrinks under its readers is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto import caffe_pb2

#: Prints the resident memory, without file pages, at the end of each epoch.
EPOCHS = """
import sys, psutil, torch
from cortado.layers.base import Context
from cortado.layers.data.data import Data
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
layer = parse(sys.argv[1], caffe_pb2.LayerParameter).message
source = Data.from_message(layer, Context(num_tops=2))
for epoch in range(int(sys.argv[2])):
    for _ in range(source.records // 20):
        source.next(torch.device("cpu"))
    memory = psutil.Process().memory_info()
    print(memory.rss - getattr(memory, "shared", 0))
source.close()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """200 raw records of 100 KB: 20 MB."""
    pixels = np.random.default_rng(0).integers(0, 256, 3 * 180 * 185, np.uint8).tobytes()
    with LmdbWriter(tmp_path / "db") as writer:
        for number in range(200):
            datum = caffe_pb2.Datum(channels=3, height=180, width=185, data=pixels, label=number)
            writer.put(b"%04d" % number, datum.SerializeToString())
    return tmp_path / "db"


def memory_of_epochs(database: Path, transform: str, data: str, epochs: int) -> list[int]:
    layer = (
        f'name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }} '
        f'data_param {{ source: "{database}" backend: LMDB batch_size: 20 threads: 2 {data} }}'
    )
    done = subprocess.run(
        [sys.executable, "-c", EPOCHS, layer, str(epochs)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize(
    ("transform", "data"),
    [
        ("crop_size: 160 mirror: true mean_value: 100", ""),
        (
            "crop_size: 160 augment { crop_area: 0.3 crop_area: 1 rand_augment_ops: 1 "
            "erase_probability: 0.5 }",
            "shuffle: true",
        ),
    ],
)
def test_memory_is_flat_over_epochs(database: Path, transform: str, data: str) -> None:
    memory = memory_of_epochs(database, transform, data, 9)
    # An epoch delivers 60 MB of batches and reads 20 MB. What leaks a batch in an epoch, 6 MB,
    # would show as 36 MB.
    assert memory[-1] - memory[2] < 12_000_000, memory


SHRINK = """
import os, sys
from cortado.layers.data.database import open_database
from cortado.proto.errors import DataError
path = sys.argv[1]
os.truncate(f"{path}/data.mdb", os.path.getsize(f"{path}/data.mdb") // 2)
try:
    for key, value in open_database(path).records():
        bytes(value)
except DataError as error:
    print(error)
"""


def test_a_cut_database_is_refused_before_it_could_end_the_process(database: Path) -> None:
    size = (database / "data.mdb").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", SHRINK, str(database)], capture_output=True, text=True, timeout=60
    )
    # Touching a page beyond the end of a mapped file would end it with SIGBUS, -7.
    assert done.returncode == 0, done.stderr
    assert "truncated" in done.stdout
    assert f"{size // 2:,} bytes" in done.stdout
    assert f"{size:,}" in done.stdout
