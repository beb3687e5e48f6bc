"""What snapshots and the check for NaN cost a run.

    python scripts/bench_snapshots.py [--folder DIR] [--millions 139] [--rounds 5]

Snapshots: training of a net with as many parameters as VGG-16 and momentum; "stall" is how long it
waits, "written" how long the thread took until both files were flushed and entered. The check of
loss and gradients: what steps with it take longer than steps without, in turn, and the processor
time that it takes itself.
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
from cortado.solvers.hooks import Hook
from cortado.solvers.hooks.finite import Finite
from cortado.solvers.hooks.snapshots import Snapshots
from cortado.solvers.loop import Iteration, Pass
from cortado.tools.benchmarks.nets import definition


def solver(folder: Path, millions: int) -> Solver:
    width = millions * 10**6 // 4096 // 8
    net = "".join(
        f"""layer {{ name: "ip{n}" type: "InnerProduct" bottom: "data" top: "y{n}"
              inner_product_param {{ num_output: 4096 }} }}
            layer {{ name: "sum{n}" type: "Reduction" bottom: "y{n}" top: "z{n}" loss_weight: 1 }}
        """
        for n in range(8)
    )
    text = f"""
        net_param {{ name: "wide" layer {{ name: "in" type: "DummyData" top: "data"
          dummy_data_param {{ shape {{ dim: 1 dim: {width} }} }} }} {net} }}
        base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "{folder}/run"
        snapshot: 8 solver_mode: CPU
    """
    return Solver(parse(text, SolverParameter), device="cpu")


class Waiting(Hook):
    """Lets each snapshot be written before training goes on, and notes what processors did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[events.SnapshotWritten] = []
        self.busy: list[float] = []

    def listen(self, event: events.Event) -> None:
        if isinstance(event, events.SnapshotWritten):
            self.written.append(event)

    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        (saver,) = (hook for hook in solver.hooks if isinstance(hook, Snapshots))
        began = time.process_time()
        saver.wait(solver)
        self.busy.append(time.process_time() - began)
        for path in self.folder.glob("run_iter_*"):
            path.unlink()


def snapshots(folder: Path, millions: int, rounds: int) -> None:
    with solver(folder, millions) as wide:
        waiting = Waiting(folder)
        wide.listeners.append(waiting.listen)
        wide.hooks.append(waiting)
        wide.step(8 * rounds)
    stalls = sorted(event.stall for event in waiting.written)
    seconds = statistics.median(event.seconds for event in waiting.written)
    stall, busy = statistics.median(stalls), max(statistics.median(waiting.busy[7::8]), 0)
    print(
        f"{millions} million parameters with momentum: stall {stall:.2f} s "
        f"({stalls[0]:.2f} to {stalls[-1]:.2f}), written {seconds:.2f} s "
        f"with {busy:.2f} s of a processor"
    )
    cores = torch.get_num_threads()
    print(
        f"share of run time at a snapshot every 5 minutes: {stall / 300:.2%} waiting, "
        f"{(stall + busy / cores) / 300:.2%} if writing takes its part of {cores} processors"
    )


class Timed(Finite):
    """The check, with the processor time that it takes itself."""

    seconds = 0.0

    def _add(self, parameter: torch.Tensor) -> None:
        began = time.thread_time()
        super()._add(parameter)
        self.seconds += time.thread_time() - began

    def after_pass(self, solver: Solver, made: Pass) -> bool:
        began = time.thread_time()
        result = super().after_pass(solver, made)
        self.seconds += time.thread_time() - began
        return result


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
        plain = [hook for hook in solver.hooks if not isinstance(hook, Finite)]
        timed = Timed(deferred=False)
        checked = [*plain, timed]
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
        f"(quartiles of {len(extra)} pairs: {low / step:.2%} to {high / step:.2%}); "
        f"by its own clock {timed.seconds / BLOCK / len(extra) / step:.2%}",
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
