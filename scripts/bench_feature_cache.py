"""An epoch of ResNet-18 with everything but its head frozen, with and without cached features.

The zoo's net at 224x224 on JPEG images in an LMDB, on the CPU. Epochs of the kinds come in turn;
what counts are the medians. `--write` puts the result into docs/benchmarks.md.

    python scripts/bench_feature_cache.py --write
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto.caffe_pb2 import Datum, SolverParameter
from cortado.proto.files import read_net
from cortado.proto.positions import Document
from cortado.solvers import Solver, fine_tuning
from cortado.solvers.requirements import SolverDocument

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
CLASSES = 5
#: All layers of the zoo's ResNet-18 that have blobs, but the last one.
TRUNK = ["conv1*", "bn1*", "layer*"]


def write_images(path: Path, count: int) -> None:
    """Smooth noise, so that the JPEG files are about as large as photographs are."""
    random = np.random.default_rng(0)
    with LmdbWriter(path) as writer:
        for number in range(count):
            noise = random.integers(0, 256, (256, 256, 3), np.uint8)
            image = cv2.resize(cv2.GaussianBlur(noise, (5, 5), 2), (224, 224))
            data = cv2.imencode(".jpg", image)[1].tobytes()
            datum = Datum(encoded=True, data=data, label=number % CLASSES)
            writer.put(b"%08d" % number, datum.SerializeToString())


def solver_document(folder: Path, batch: int) -> SolverDocument:
    """The zoo's net on the images of ``folder``; nothing is tested or saved."""
    net = read_net(ROOT / "model_zoo/resnet18/net.prototxt").message
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source = str(folder / "images")
            layer.data_param.batch_size = batch
            layer.data_param.shuffle = True
            layer.transform_param.mirror = False
    solver = SolverParameter(
        net_param=net,
        base_lr=0.001,
        lr_policy="fixed",
        momentum=0.9,
        max_iter=1 << 30,
        random_seed=1,
        snapshot_after_train=False,
        feature_cache=str(folder / "features"),
    )
    return fine_tuning.with_head(Document(solver), "fc", CLASSES)


def seconds(solver: Solver, iterations: int) -> float:
    began = time.perf_counter()
    solver.step(iterations)
    return time.perf_counter() - began


def measure(images: int, batch: int, rounds: int) -> dict[str, float]:
    """Seconds of an epoch of each kind, and of making the features."""
    epoch = images // batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", images)
        whole = solver_document(folder, batch)
        frozen = fine_tuning.frozen(whole, TRUNK)
        cached = fine_tuning.frozen(whole, TRUNK)
        cached.message.cache_features = True
        solvers = [Solver(whole, device="cpu")]
        solvers[0].step(2)  # so that BatchNorm has statistics to be frozen with
        learning = seconds(solvers[0], epoch)
        start = folder / "start.caffemodel"
        solvers[0].net.save(start)
        solvers += [Solver(each, device="cpu", weights=[start]) for each in (frozen, cached)]
        solvers[1].step(2)
        making = seconds(solvers[2], 1)
        # Epochs on kept features are short: many are timed together.
        times = [[seconds(solvers[1], epoch), seconds(solvers[2], 20 * epoch) / 20]
                 for _ in range(rounds)]  # fmt: skip
        columns = list(zip(*times, strict=True))
        for solver in solvers:
            solver.close()
    return {
        "all layers learn": learning,
        "trunk frozen": statistics.median(columns[0]),
        "cached": statistics.median(columns[1]),
        "making": making,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.images, args.batch, args.rounds)
    frozen, cached = found["trunk frozen"], found["cached"]
    line = (
        f"| {args.images} images, {args.threads} thread(s) | {found['all layers learn']:.1f} s | "
        f"{frozen:.1f} s | {cached * 1000:.0f} ms | **{frozen / cached:.0f}** | "
        f"{found['making']:.1f} s |"
    )
    print(line)
    if args.write:
        text = BENCHMARKS.read_text(encoding="utf-8")
        pattern = rf"(?m)^\| {args.images} images, {args.threads} thread\(s\) .*$"
        BENCHMARKS.write_text(re.sub(pattern, line, text), encoding="utf-8")


if __name__ == "__main__":
    main()
