"""What snapshots and the check for NaN cost a run.

    python scripts/bench_snapshots.py [--folder DIR] [--millions 139] [--rounds 5]

Snapshots: a net with as many parameters as VGG-16 and momentum; "stall" is how long training waits,
"written" how long the thread took until both files were flushed and entered. Share is the stall at
a snapshot every 5 minutes. The check of loss and gradients: its share of real training steps.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.text import parse, to_text
from cortado.solvers import Solver, events
from cortado.solvers.hooks.finite import Finite
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


#: Steps in a row, because a call of step() sets up what a run sets up once.
BLOCK = 4


def check(name: str, seconds: float) -> None:
    """What a step with the check takes longer than one without, in turn and on one thread."""
    net = definition(name)
    text = f"""net_param {{ {to_text(net)} }} base_lr: 0.001 lr_policy: "fixed" momentum: 0.9
        snapshot_after_train: false solver_mode: CPU"""
    with Solver(parse(text, SolverParameter), device="cpu") as solver:
        batch = {key: torch.zeros(shape) for key, shape in solver.net.inputs.items()}
        batch["data"].normal_()
        solver.net.next_batch = lambda: batch  # type: ignore[method-assign]
        checked = list(solver.hooks)
        plain = [hook for hook in checked if not isinstance(hook, Finite)]
        solver.step(2)
        steps: list[float] = []
        extra: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            taken = {}
            for hooks in random.sample([checked, plain], 2):
                solver.hooks = hooks
                began = time.perf_counter()
                solver.step(BLOCK)
                taken[hooks is checked] = (time.perf_counter() - began) / BLOCK
            steps.append(taken[False])
            extra.append(taken[True] - taken[False])
    low, middle, high = statistics.quantiles(extra, n=4)
    step = statistics.median(steps)
    print(
        f"check for NaN, {name}, batch {len(batch['label'])}: {middle * 1e3:.2f} ms of "
        f"{step * 1e3:.1f} ms, {middle / step:.2%} of a step "
        f"(quartiles of {len(extra)} pairs: {low / step:.2%} to {high / step:.2%})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--millions", type=int, default=139)
    parser.add_argument("--rounds", type=int, default=5, help="snapshots")
    parser.add_argument("--seconds", type=float, default=20.0, help="of LeNet with the check")
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads")
    torch.set_num_threads(1)
    check("lenet", arguments.seconds)
    check("resnet50", 3 * arguments.seconds)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        snapshots(Path(folder), arguments.millions, arguments.rounds)


if __name__ == "__main__":
    main()
