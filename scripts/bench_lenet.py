"""LeNet's training step here against the same layers in a torch loop written by hand.

Both train on the same synthetic batch of 64, in turn, in blocks of iterations; what counts is the
ratio of the two within a round, and its median. `--write` puts the result into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from cortado.proto import caffe_pb2
from cortado.proto.files import read_net
from cortado.solvers import Solver

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
BATCH = 64


def lenet_solver() -> Solver:
    """A solver for examples/mnist's LeNet on constant data, quiet and without files."""
    net = read_net(ROOT / "examples/mnist/lenet_train_test.prototxt").message
    kept = [layer for layer in net.layer if layer.type not in ("Data", "Accuracy")]
    data = caffe_pb2.LayerParameter(name="data", type="DummyData", top=["data", "label"])
    for shape in ((BATCH, 1, 28, 28), (BATCH,)):
        data.dummy_data_param.shape.add().dim.extend(shape)
    del net.layer[:]
    net.layer.extend([data, *kept])
    solver = caffe_pb2.SolverParameter(
        net_param=net,
        base_lr=0.01,
        momentum=0.9,
        weight_decay=0.0005,
        lr_policy="inv",
        gamma=0.0001,
        power=0.75,
        max_iter=1 << 30,
        snapshot_after_train=False,
        random_seed=1,
    )
    return Solver(solver, device="cpu")


def by_hand() -> Callable[[int], None]:
    """The plain loop that a user would write."""
    layers = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    images, labels = torch.zeros(BATCH, 1, 28, 28), torch.zeros(BATCH, dtype=torch.long)

    def train(iterations: int) -> None:
        for _ in range(iterations):
            optimizer.zero_grad()
            functional.cross_entropy(layers(images), labels).backward()
            optimizer.step()

    return train


def milliseconds(work: Callable[[int], None], iterations: int) -> float:
    began = time.perf_counter()
    work(iterations)
    return (time.perf_counter() - began) * 1000 / iterations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    solver, hand = lenet_solver(), by_hand()
    for work in (solver.step, hand):
        work(5)
    rounds = [
        (milliseconds(solver.step, args.iterations), milliseconds(hand, args.iterations))
        for _ in range(args.rounds)
    ]
    ratios = sorted(ours / theirs for ours, theirs in rounds)
    ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    line = (
        f"| LeNet 64, {args.threads} thread(s) | {ours:.2f} | {theirs:.2f} | "
        f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f} to {ratios[-1]:.2f} |"
    )
    print("| net, batch | Cortado, ms | by hand, ms | ratio | ratios |\n" + line)
    if args.write:
        text = BENCHMARKS.read_text(encoding="utf-8")
        pattern = rf"(?m)^\| LeNet 64, {args.threads} thread\(s\) .*$"
        BENCHMARKS.write_text(re.sub(pattern, line, text), encoding="utf-8")


if __name__ == "__main__":
    main()
