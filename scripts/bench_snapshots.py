"""What snapshots and the check for NaN cost a run.

    python scripts/bench_snapshots.py [--folder DIR] [--millions 139] [--rounds 5]

Snapshots: a net with as many parameters as VGG-16 and momentum; "stall" is how long training waits,
"written" how long the thread took until both files were flushed and entered. Share is the stall at
a snapshot every 5 minutes. The check: loss and gradients of ResNet-50's 161 parameters.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bench_update import Parameter, parameters

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.text import parse
from cortado.solvers import Solver, events
from cortado.solvers.update import Updater, total_norm


def solver(folder: Path, millions: int) -> Solver:
    width = millions * 10**6 // 4096 // 8
    net = "".join(
        f"""layer {{ name: "ip{n}" type: "InnerProduct" bottom: "data" top: "y{n}"
              inner_product_param {{ num_output: 4096 }} }}"""
        for n in range(8)
    )
    text = f"""
        net_param {{ name: "wide" layer {{ name: "in" type: "DummyData" top: "data"
          dummy_data_param {{ shape {{ dim: 1 dim: {width} }} }} }} {net} }}
        base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "{folder}/run"
        solver_mode: CPU
    """
    return Solver(parse(text, SolverParameter), device="cpu")


def snapshots(folder: Path, millions: int, rounds: int) -> None:
    with solver(folder, millions) as wide:
        done: list[events.SnapshotWritten] = []
        wide.listeners.append(
            lambda e: done.append(e) if isinstance(e, events.SnapshotWritten) else None
        )
        for number in range(rounds):
            wide.iteration = number
            wide.snapshot()
            wide.close()  # waits until the files are written
            for path in folder.glob("run_iter_*"):
                path.unlink()
    stall = statistics.median(event.stall for event in done)
    written = statistics.median(event.seconds for event in done)
    print(
        f"{millions} million parameters with momentum: stall {stall:.2f} s, written {written:.2f} s"
    )
    print(f"share of run time at a snapshot every 5 minutes: {stall / 300:.2%}")


def check(rounds: int) -> None:
    updater = Updater(
        [Parameter(tensor) for tensor in parameters("cpu")],  # type: ignore[misc]
        SolverParameter(type="SGD", momentum=0.9),
    )
    times = []
    for _ in range(rounds * 3):
        began = time.perf_counter()
        bool(total_norm(updater.gradients()).isfinite())
        times.append(time.perf_counter() - began)
    print(f"check of 25.6 million gradients: {statistics.median(times) * 1e3:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--millions", type=int, default=139)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    check(arguments.rounds)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        snapshots(Path(folder), arguments.millions, arguments.rounds)


if __name__ == "__main__":
    main()
