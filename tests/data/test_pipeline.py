"""The way of a CUDA device, bytes first and the arithmetic in bulk, gone through on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.layers.base import TRAIN
from cortado.layers.data.buffers import BufferPool
from cortado.layers.data.data import Data
from cortado.layers.data.database import open_database
from cortado.layers.data.labels import Labels
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.pipeline import Pipeline, Ready
from cortado.layers.data.transform import Transform
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError

CPU = torch.device("cpu")
BATCH = 6
MEANS = {
    "none": {},
    "values": {"mean_values": [10.0, 20.5, 30.25]},
    "image": {"mean_image": np.random.default_rng(2).random((3, 9, 11), np.float32) * 255},
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    with LmdbWriter(tmp_path / "db") as writer:
        for number in range(8):
            pixels = generator.integers(0, 256, 3 * 9 * 11, np.uint8).tobytes()
            datum = caffe_pb2.Datum(channels=3, height=9, width=11, data=pixels, label=number)
            writer.put(b"%02d" % number, datum.SerializeToString())
        datum = caffe_pb2.Datum(channels=3, height=9, width=11, float_data=[0.5] * 297, label=8)
        writer.put(b"08", datum.SerializeToString())
    return tmp_path / "db"


def batches(database: Path, transform: Transform, as_bytes: bool, count: int) -> list[Ready]:
    source = Data(open_database(database), transform, batch_size=BATCH)
    pipeline = Pipeline(
        source._sampler(None, seed=3),
        transform,
        batch_size=BATCH,
        shape=(3, 7, 7),
        seed=3,
        device=CPU,
        pool=BufferPool(spare=2),
        as_bytes=as_bytes,
        varies=False,
        labels=Labels(),
        skip_bad=True,
    )
    return [pipeline.load(pipeline.plan()) for _ in range(count)]


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scale", [1.0, 0.017])
def test_bytes_that_are_finished_in_bulk_are_the_same_batch(
    database: Path, mean: str, scale: float
) -> None:
    transform = Transform(TRAIN, crop_size=7, mirror=True, scale=scale, **MEANS[mean])
    (floats,) = batches(database, transform, as_bytes=False, count=1)
    (finished,) = batches(database, transform, as_bytes=True, count=1)
    assert floats.keys == finished.keys
    for there, here in zip(floats.tops, finished.tops, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0)


def test_floats_among_bytes_are_named_where_bytes_are_wanted(database: Path) -> None:
    transform = Transform(TRAIN, crop_size=7, mirror=True)
    skipped = batches(database, transform, as_bytes=True, count=2)[1].skipped
    assert [type(error) for error in skipped] == [DataError]
    assert "record '08'" in str(skipped[0])
    assert "float_data, but the first record has bytes" in str(skipped[0])
