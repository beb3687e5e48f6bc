"""Memory stays flat over epochs, and a file that shrinks under its readers is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto import caffe_pb2

#: Prints the memory that is the process's own, without pages of mapped files, after each epoch.
EPOCHS = """
import sys, torch
from cortado.layers.base import Context
from cortado.layers.data.data import Data
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
layer = parse(sys.argv[1], caffe_pb2.LayerParameter).message
source = Data.from_message(layer, Context(num_tops=2))
for epoch in range(int(sys.argv[2])):
    for _ in range(source.records // layer.data_param.batch_size):
        source.next(torch.device("cpu"))
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    print(1024 * int(fields["RssAnon"].split()[0]))
source.close()
"""

#: /proc is Linux's.
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


def write(path: Path, count: int, side: int) -> Path:
    """Raw records of 3 x ``side`` x ``side`` bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, 3 * side * side, np.uint8).tobytes()
    with LmdbWriter(path) as writer:
        for number in range(count):
            datum = caffe_pb2.Datum(
                channels=3, height=side, width=side, data=pixels, label=number % 5
            )
            writer.put(b"%08d" % number, datum.SerializeToString())
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """200 records of 100 KB: 20 MB."""
    return write(tmp_path / "db", 200, 183)


def memory_of_epochs(
    database: Path, transform: str, data: str, epochs: int, batch: int = 20
) -> list[int]:
    layer = (
        f'name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }} '
        f'data_param {{ source: "{database}" backend: LMDB batch_size: {batch} threads: 2 {data} }}'
    )
    done = subprocess.run(
        [sys.executable, "-c", EPOCHS, layer, str(epochs)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@on_linux
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


@on_linux
@pytest.mark.parametrize("data", ["", "shuffle: true"])
def test_memory_does_not_grow_with_the_database(database: Path, tmp_path: Path, data: str) -> None:
    larger = write(tmp_path / "larger", 1000, 183)
    transform = "crop_size: 160 mirror: true mean_value: 100"
    (small,) = memory_of_epochs(database, transform, data, 1)
    (large,) = memory_of_epochs(larger, transform, data, 1)
    # There are 80 MB more in the database. A batch takes 6 MB.
    assert abs(large - small) < 13_000_000


@on_linux
def test_shuffling_takes_few_bytes_a_record(tmp_path: Path) -> None:
    few, many = write(tmp_path / "few", 1_000, 1), write(tmp_path / "many", 301_000, 1)
    small, large = (
        memory_of_epochs(each, "", "shuffle: true", 1, batch=1000)[0] for each in (few, many)
    )
    # The key, its end and its place in the epoch's order are 16 bytes, sorting takes as many again.
    # Objects of Python in their place would take more than a hundred.
    assert large - small < 64 * 300_000


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
