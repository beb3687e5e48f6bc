"""Measure how fast data comes: our sources against torch DataLoaders that do the same work.

Makes its own databases in a temporary folder. What is compared runs alternately with the same
number of threads or workers; medians and their ratio are printed. Besides the rate by the clock
there is the rate per second of processor time, which other users of the machine hardly change.

  raw      raw 3x256x256 records, crop 227, mirror, mean; a DataLoader over the same LMDB
  jpeg     JPEG of 500x375, shorter side to 256, crop 224, mirror, mean; ImageFolder + DataLoader
  convert  convert_imageset on one thread and on all cores
  alexnet  steps of AlexNet (or another --net) from an LMDB and from DummyData

With --caffe PROGRAM (the binary of Caffe, or a script that runs it) raw and jpeg are compared with
Caffe's Data layer too: the same layer and database under "caffe time", in turn with ours.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch.utils.data import Dataset

from cortado.layers.base import TRAIN, Context
from cortado.layers.data.augment import Preparation
from cortado.layers.data.augment.geometry import Resize
from cortado.layers.data.conversion import Options, convert
from cortado.layers.data.data import Data
from cortado.layers.data.database import open_database
from cortado.layers.data.lists import ListedImage
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.mean import write_mean
from cortado.layers.data.prefetch import available_cores
from cortado.layers.data.transform import Transform
from cortado.proto import caffe_pb2
from cortado.proto.caffe_pb2 import NetParameter, SolverParameter
from cortado.proto.files import read_net
from cortado.proto.positions import Document
from cortado.proto.text import parse
from cortado.solvers import Solver

BATCH = 128
#: More batches than any of the two prepares ahead.
WARM_UP = 6
CPU = torch.device("cpu")
LAYER = (
    'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { %s } '
    'data_param { source: "%s" backend: LMDB batch_size: %d } }'
)


def photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return [image[:, :, ::-1] for image in load_sample_images().images]


def crops(count: int, height: int, width: int) -> list[np.ndarray]:
    """Crops of the two photographs in scikit-learn, 640 x 427."""
    generator = np.random.default_rng(0)
    sources = photographs()
    found = []
    for number in range(count):
        image = sources[number % 2]
        top = generator.integers(image.shape[0] - height)
        left = generator.integers(image.shape[1] - width)
        found.append(np.ascontiguousarray(image[top : top + height, left : left + width]))
    return found


def write_raw(path: Path, count: int) -> None:
    # Nothing is decoded, so it does not matter what they show.
    images = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), np.uint8)
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


class Reader(Dataset):
    """What a user would write: protobuf, NumPy and OpenCV, one record at a time."""

    def __init__(self, path: str, count: int, crop: int, mean: np.ndarray | None) -> None:
        self.path, self.count, self.crop, self.mean = path, count, crop, mean
        self.transaction: Any = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.transaction is None:
            import lmdb

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


@dataclass(frozen=True, slots=True)
class Rate:
    """Images per second, by the clock and by processor time."""

    clock: float
    processor: float


def processor_seconds() -> float:
    """Processor time of this process and its children."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def rate(next_batch: Callable[[], object], batches: int) -> Rate:
    """The rate over ``batches``, after what was prepared ahead has been used up."""
    for _ in range(WARM_UP):
        next_batch()
    used, started = processor_seconds(), time.perf_counter()
    for _ in range(batches):
        next_batch()
    images = BATCH * batches
    return Rate(images / (time.perf_counter() - started), images / (processor_seconds() - used))


def compare(
    name: str, path: Path, transform: Transform, dataset: Dataset, args: argparse.Namespace
) -> None:
    """Run the Data source and a DataLoader over ``dataset`` in turn, and print their rates."""
    source = Data(open_database(path), transform, batch_size=BATCH)
    source.threads = args.threads
    loader = torch.utils.data.DataLoader(
        dataset,
        BATCH,
        num_workers=args.threads,
        persistent_workers=True,
        # A forked worker could not open the environment that its parent has open. Spawned workers
        # end like any interpreter, and now and then abort while C++ libraries are torn down
        # ("terminate called without an active exception"); those of a fork server leave at once.
        multiprocessing_context="forkserver",
    )
    ours: list[Rate] = []
    theirs: list[Rate] = []
    for _ in range(args.repeats):
        ours.append(rate(lambda: source.next(CPU), args.batches))
        source.close()
        batches = iter(loader)
        theirs.append(rate(partial(next, batches), args.batches))
        del batches
    for what, rates in (("Data", ours), ("DataLoader", theirs)):
        clock, processor = (
            statistics.median(getattr(each, field) for each in rates)
            for field in ("clock", "processor")
        )
        print(f"{name}: {what} {clock:,.0f} img/s, {processor:,.0f} per processor second")
    print(
        f"{name}: ratio {median_ratio(ours, theirs, 'clock'):.2f} by the clock, "
        f"{median_ratio(ours, theirs, 'processor'):.2f} by processor time "
        f"({args.threads} threads or workers, median of {args.repeats})"
    )


def against_caffe(name: str, layer: str, folder: Path, args: argparse.Namespace) -> None:
    """Run ``layer``, a Data layer in prototxt, in Caffe and here in turn, and print the rates."""
    path = folder / f"{name}.prototxt"
    path.write_text(f'{layer} layer {{ type: "Silence" name: "s" bottom: "data" bottom: "label" }}')
    message = parse(layer, NetParameter).message.layer[0]
    source = Data.from_message(message, Context(num_tops=2))
    source.threads = args.threads
    # What Caffe prepares ahead before its clock starts shall not count.
    batches = 8 * args.batches
    command = [args.caffe, "time", f"-model={path}", "-phase=TRAIN", f"-iterations={batches}"]
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(rate(lambda: source.next(CPU), batches).clock)
        source.close()
        # The program is the one that the user names.
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr  # noqa: S603
        found = re.search(r"Average Forward pass: (\S+) ms", log)
        assert found, log
        theirs.append(1000 * BATCH / float(found[1]))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    here, there, ratio = map(statistics.median, (ours, theirs, ratios))
    print(
        f"{name} against Caffe: {here:,.0f} and {there:,.0f} img/s by the clock; ratio {ratio:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {args.repeats} pairs)"
    )


def median_ratio(ours: list[Rate], theirs: list[Rate], field: str) -> float:
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)


def bench_raw(folder: Path, args: argparse.Namespace) -> None:
    count = BATCH * (args.batches + WARM_UP + 8)
    path = folder / "raw"
    write_raw(path, count)
    mean = np.random.default_rng(1).random((3, 256, 256), np.float32) * 255
    transform = Transform(TRAIN, crop_size=227, mirror=True, mean_image=mean)
    dataset = Reader(str(path), count, 227, mean)
    compare("raw 3x256x256, crop 227, mirror, mean", path, transform, dataset, args)
    if args.caffe:
        write_mean(mean, folder / "mean.binaryproto")
        prepare = f'crop_size: 227 mirror: true mean_file: "{folder}/mean.binaryproto"'
        against_caffe("raw", LAYER % (prepare, path, BATCH), folder, args)


def bench_jpeg(folder: Path, args: argparse.Namespace) -> None:
    import torchvision
    from torchvision import transforms

    count = BATCH * (args.batches + WARM_UP + 8)
    path = folder / "jpeg"
    size = write_jpeg(path, count)
    images = folder / "images" / "all"
    images.mkdir(parents=True)
    for number, (_, value) in enumerate(open_database(path).records()):
        (images / f"{number:06d}.jpg").write_bytes(caffe_pb2.Datum.FromString(bytes(value)).data)
    steps = [
        transforms.Resize(256),
        transforms.RandomCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.45] * 3, [1 / 255] * 3),
    ]
    dataset = torchvision.datasets.ImageFolder(str(images.parent), transforms.Compose(steps))
    transform = Transform(
        TRAIN,
        crop_size=224,
        mirror=True,
        mean_values=[115.0] * 3,
        preparation=Preparation(Resize(side=256)),
    )
    name = f"JPEG 500x375 ({size / 1000:.0f} KB), resize 256, crop 224, mirror, mean"
    compare(name, path, transform, dataset, args)
    if args.caffe:
        # Caffe's layer cannot resize, so neither does ours here.
        prepare = "crop_size: 224 mirror: true mean_value: 115"
        against_caffe("jpeg_not_resized", LAYER % (prepare, path, BATCH), folder, args)


def bench_convert(folder: Path, args: argparse.Namespace) -> None:
    images = folder / "convert"
    images.mkdir()
    listed = []
    for number, image in enumerate(crops(1024, 375, 500)):
        name = f"{number:04d}.jpg"
        cv2.imwrite(str(images / name), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        listed.append(ListedImage(number + 1, name, 0))
    options = Options(resize_width=256, resize_height=256)
    seconds: dict[int, list[float]] = {1: [], args.threads: []}
    shares = []
    for repeat in range(args.repeats):
        for threads, found in seconds.items():
            target = folder / f"db_{threads}_{repeat}"
            started, used = time.perf_counter(), time.process_time()
            mine = time.thread_time()
            convert(listed, f"{images}/", target, options, threads=threads)
            found.append(time.perf_counter() - started)
            shares.append((time.thread_time() - mine) / (time.process_time() - used))
            shutil.rmtree(target)
    ratios = [one / many for one, many in zip(*seconds.values(), strict=True)]
    rates = [len(listed) / statistics.median(each) for each in seconds.values()]
    print(
        f"convert_imageset: {rates[0]:,.0f} img/s on one thread, {rates[1]:,.0f} on "
        f"{args.threads}; ratio {statistics.median(ratios):.2f} (median of {args.repeats}); "
        f"the writing thread has {statistics.median(shares):.1%} of the processor time"
    )


def bench_alexnet(folder: Path, args: argparse.Namespace) -> None:
    write_raw(folder / "alexnet", 512)
    size, device = args.size, f"cuda:{args.gpu}" if args.gpu else "cpu"
    sources = {
        "LMDB": 'type: "Data" transform_param { crop_size: 227 mirror: true mean_value: 110 } '
        f'data_param {{ source: "{folder / "alexnet"}" backend: LMDB batch_size: {size} '
        f"prefetch: {max(4, args.threads)} }}",
        "DummyData": f'type: "DummyData" dummy_data_param {{ shape {{ dim: {size} dim: 3 dim: 227 '
        f"dim: 227 }} shape {{ dim: {size} }} }}",
    }
    layers = list(read_net(args.net).message.layer)
    # What comes before the first convolution prepares data.
    start = next(i for i, each in enumerate(layers) if each.type == "Convolution")
    body = layers[start:]
    solvers = {}
    torch.set_num_threads(args.threads)
    for name, text in sources.items():
        net = parse(f'layer {{ name: "data" top: "data" top: "label" {text} }}', NetParameter)
        net.message.layer.extend(body)
        fields = 'base_lr: 0.001 lr_policy: "fixed" max_iter: 1000000 snapshot_after_train: false '
        parameters = parse(f"{fields} precision: {args.precision}", SolverParameter).message
        parameters.net_param.CopyFrom(net.message)
        solvers[name] = Solver(Document(parameters), device=device)
        solvers[name].step(args.steps)
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    used: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(args.repeats):
        for name, solver in solvers.items():
            started, before = time.perf_counter(), processor_seconds()
            solver.step(args.steps)
            if args.gpu:
                torch.cuda.synchronize(device)
            seconds[name].append((time.perf_counter() - started) / args.steps)
            used[name].append((processor_seconds() - before) / args.steps)
    for what, found in (("by the clock", seconds), ("of processor time", used)):
        ratios = [a / b for a, b in zip(*found.values(), strict=True)]
        middle = {name: 1000 * statistics.median(each) for name, each in found.items()}
        lmdb, made_up = (f"{middle[name]:.1f} ms from {name}" for name in sources)
        print(
            f"{Path(args.net).parent.name} {size} x 227, a step {what}: {lmdb}, {made_up}; "
            f"ratio {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}, {args.repeats} pairs)"
        )


BENCHMARKS = {
    "raw": bench_raw,
    "jpeg": bench_jpeg,
    "convert": bench_convert,
    "alexnet": bench_alexnet,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["raw", "jpeg", "convert"])
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--caffe", metavar="PROGRAM", help="raw, jpeg: compare with Caffe's layer")
    net = Path(__file__).resolve().parent.parent / "model_zoo" / "bvlc_alexnet" / "net.prototxt"
    parser.add_argument("--net", default=str(net), help="alexnet: the net")
    parser.add_argument("--size", type=int, default=16, help="alexnet: images a step")
    parser.add_argument("--gpu", default="", help="alexnet: number of a GPU; the CPU without it")
    parser.add_argument("--precision", default="FP32", help="alexnet: as the solver's field")
    parser.add_argument(
        "--steps",
        type=int,
        default=2,
        help="alexnet: a turn; more than are prepared ahead, on GPUs",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.what:
        with tempfile.TemporaryDirectory() as folder:
            BENCHMARKS[name](Path(folder), args)


if __name__ == "__main__":
    main()
