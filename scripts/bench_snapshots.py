"""What snapshots and the check for NaN cost a run.

    python scripts/bench_snapshots.py [--folder DIR] [--millions 139] [--rounds 5]

Snapshots: a net with as many parameters as VGG-16 and momentum; "stall" is how long training waits,
"written" how long the thread took until both files were flushed and entered. Share is the stall at
a snapshot every 5 minutes. The check of loss and gradients: its share of real training steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.text import parse, to_text
from cortado.solvers import Solver, events
from cortado.solvers.hooks import Hook
from cortado.solvers.hooks.finite import Finite
from cortado.solvers.loop import Iteration
from cortado.tools.benchmarks.nets import definition


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


class Timed(Hook):
    """Notes the CPU time that another hook takes after each backward pass."""

    def __init__(self, inner: Hook) -> None:
        self.inner = inner
        self.times: list[float] = []

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        began = time.thread_time()
        self.inner.after_backward(solver, iteration)
        self.times.append(time.thread_time() - began)


def check(name: str, rounds: int) -> None:
    """The share of a training step's CPU time that the check takes, on one thread."""
    net = definition(name)
    text = f"""net_param {{ {to_text(net)} }} base_lr: 0.001 lr_policy: "fixed" momentum: 0.9
        snapshot_after_train: false solver_mode: CPU"""
    shares, checks, steps = [], [], []
    with Solver(parse(text, SolverParameter), device="cpu") as solver:
        batch = {key: torch.zeros(shape) for key, shape in solver.net.inputs.items()}
        batch["data"].normal_()
        solver.net.next_batch = lambda: batch  # type: ignore[method-assign]
        timed = Timed(next(hook for hook in solver.hooks if isinstance(hook, Finite)))
        solver.hooks[solver.hooks.index(timed.inner)] = timed
        for _ in range(rounds):
            began = time.thread_time()
            solver.step(1)
            steps.append(time.thread_time() - began)
            checks.append(timed.times[-1])
            shares.append(checks[-1] / steps[-1])
    print(
        f"check for NaN, {name}, batch {len(batch['label'])}: "
        f"{statistics.median(checks) * 1e3:.2f} ms of "
        f"{statistics.median(steps) * 1e3:.0f} ms, {statistics.median(shares[1:]):.2%} of a step",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--millions", type=int, default=139)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads")
    torch.set_num_threads(1)
    check("lenet", 10 * arguments.rounds)
    check("resnet50", arguments.rounds)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        snapshots(Path(folder), arguments.millions, arguments.rounds)


if __name__ == "__main__":
    main()
