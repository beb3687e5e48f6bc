"""Measure how fast the Data source delivers, against a torch DataLoader over the same LMDB.

Makes its own databases in a temporary folder. Both run alternately with the same number of threads
or workers; the medians and their ratio are printed. Usage: python scripts/bench_data.py [raw|jpeg]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import lmdb
import numpy as np
import torch

from cortado.layers.base import TRAIN
from cortado.layers.data.data import Data
from cortado.layers.data.database import open_database
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.prefetch import available_cores
from cortado.layers.data.transform import Transform
from cortado.proto import caffe_pb2

BATCH = 128
CPU = torch.device("cpu")


def photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return [image[:, :, ::-1] for image in load_sample_images().images]


def crops(count: int, height: int, width: int) -> list[np.ndarray]:
    """Crops of the two photographs in scikit-learn, enlarged where they are too small."""
    generator = np.random.default_rng(0)
    sources = [cv2.resize(image, None, fx=1.5, fy=1.5) for image in photographs()]
    found = []
    for number in range(count):
        image = sources[number % 2]
        top = generator.integers(image.shape[0] - height)
        left = generator.integers(image.shape[1] - width)
        found.append(np.ascontiguousarray(image[top : top + height, left : left + width]))
    return found


def write_raw(path: Path, count: int) -> None:
    images = crops(256, 256, 256)
    with LmdbWriter(path) as writer:
        for number in range(count):
            pixels = images[number % len(images)].transpose(2, 0, 1).tobytes()
            datum = caffe_pb2.Datum(
                channels=3, height=256, width=256, data=pixels, label=number % 10, encoded=False
            )
            writer.put(b"%08d" % number, datum.SerializeToString())


def write_jpeg(path: Path, count: int, quality: int = 98) -> float:
    """Mean size in bytes."""
    sizes = []
    images = [
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        for image in crops(256, 375, 500)
    ]
    with LmdbWriter(path) as writer:
        for number in range(count):
            data = images[number % len(images)]
            sizes.append(len(data))
            datum = caffe_pb2.Datum(data=data, label=number % 10, encoded=True)
            writer.put(b"%08d" % number, datum.SerializeToString())
    return statistics.mean(sizes)


class Reader(torch.utils.data.Dataset):
    """What a user would write: protobuf, NumPy and OpenCV, one record at a time."""

    def __init__(self, path: str, count: int, crop: int, mean: np.ndarray | None) -> None:
        self.path, self.count, self.crop, self.mean = path, count, crop, mean
        self.transaction: lmdb.Transaction | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.transaction is None:
            cv2.setNumThreads(0)
            self.transaction = lmdb.open(self.path, readonly=True, lock=False).begin()
        record = self.transaction.get(b"%08d" % index)
        assert record is not None
        datum = caffe_pb2.Datum.FromString(bytes(record))
        if datum.encoded:
            image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            image = image.transpose(2, 0, 1)
        else:
            image = np.frombuffer(datum.data, np.uint8).reshape(3, datum.height, datum.width)
        values = image.astype(np.float32)
        if self.mean is not None:
            values -= self.mean
        top = np.random.randint(values.shape[1] - self.crop + 1)
        left = np.random.randint(values.shape[2] - self.crop + 1)
        values = values[:, top : top + self.crop, left : left + self.crop]
        if np.random.randint(2):
            values = values[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(values)), datum.label


def rate(next_batch: Callable[[], object], batches: int) -> float:
    """Images per second over ``batches``."""
    next_batch()
    started = time.perf_counter()
    for _ in range(batches):
        next_batch()
    return BATCH * batches / (time.perf_counter() - started)


def compare(
    name: str, path: Path, count: int, crop: int, mean: np.ndarray | None, args: argparse.Namespace
) -> None:
    transform = Transform(TRAIN, crop_size=crop, mirror=True, mean_image=mean)
    source = Data(open_database(path), transform, batch_size=BATCH)
    source.threads = args.threads
    dataset = Reader(str(path), count, crop, mean)
    loader = torch.utils.data.DataLoader(
        dataset,
        BATCH,
        num_workers=args.threads,
        persistent_workers=True,
        # A forked worker could not open the environment that its parent has open.
        multiprocessing_context="spawn",
    )
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(rate(lambda: source.next(CPU), args.batches))
        source.close()
        batches = iter(loader)
        theirs.append(rate(partial(next, batches), args.batches))
        del batches
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"{name}: Data {mine:,.0f} img/s ({mine / args.threads:,.0f} a thread), "
        f"DataLoader {other:,.0f} img/s, ratio {mine / other:.2f} "
        f"({args.threads} threads or workers, median of {args.repeats})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("raw", "jpeg"))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    count = BATCH * (args.batches + 4)
    with tempfile.TemporaryDirectory() as folder:
        if args.what != "jpeg":
            path = Path(folder) / "raw"
            write_raw(path, count)
            mean = np.random.default_rng(1).random((3, 256, 256), np.float32) * 255
            compare("raw 3x256x256, crop 227, mirror, mean", path, count, 227, mean, args)
        if args.what != "raw":
            path = Path(folder) / "jpeg"
            size = write_jpeg(path, count)
            compare(f"JPEG 500x375 ({size / 1000:.0f} KB), crop 224", path, count, 224, None, args)


if __name__ == "__main__":
    main()
