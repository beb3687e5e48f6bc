"""Kill training runs with SIGKILL at random moments, and hold what they end with against an
uninterrupted run: weights, history and displayed losses must be the same bit for bit.

    python scripts/kill_runs.py [--kills 200] [--seed 0] [--rule SGD Adam ...]

Runs are forked from this process, so that killing one costs no start of Python; each continues from
the newest complete snapshot, writes one after every second iteration, and is killed after a random
time, or at the next moment after it at which a file is being written. When it completes, a new run
starts from nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.positions import Document
from cortado.proto.text import parse
from cortado.solvers import Solver, events, snapshots

NET = """
name: "kill"
layer { name: "in" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 16 dim: 300 } shape { dim: 16 dim: 10 }
    data_filler { type: "gaussian" } data_filler { type: "uniform" } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "h"
  inner_product_param { num_output: 400 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }
layer { name: "act" type: "TanH" bottom: "h" top: "h" }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "o"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "o" bottom: "label" top: "loss" }
"""
ITERATIONS = 40
FIELDS = f"""
    net_param {{ {NET} }} base_lr: 0.01 lr_policy: "inv" gamma: 0.01 power: 0.75
    max_iter: {ITERATIONS} random_seed: 5 solver_mode: CPU weight_decay: 0.001 iter_size: 2
    snapshot: 2 display: 1 average_loss: 5 test_iter: 2 test_interval: 10 ema_decay: 0.9
"""
WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")


def document(folder: Path, rule: str) -> Document[SolverParameter]:
    momentum = "" if rule in WITHOUT_MOMENTUM else "momentum: 0.9"
    text = f'{FIELDS} type: "{rule}" {momentum} snapshot_prefix: "{folder}/run"'
    return parse(text, SolverParameter, "solver.prototxt")


def train(folder: Path, rule: str) -> None:
    """Run to the end from the newest snapshot; displayed losses are appended to a file."""
    with open(folder / "losses", "a", buffering=1) as log:

        def listen(event: events.Event) -> None:
            if isinstance(event, events.Displayed):
                log.write(f"{event.iteration} {event.loss!r}\n")

        with Solver(document(folder, rule), device="cpu", listeners=[listen]) as solver:
            solver.solve(snapshots.latest(f"{folder}/run", lambda reason: None))


def fork(folder: Path, rule: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        train(folder, rule)
        status = 0
    except BaseException as error:
        print(f"the run failed: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(status)


def results(folder: Path) -> tuple[dict[str, bytes], dict[int, str]]:
    """The final files' bytes that matter, and the loss displayed last for each iteration."""
    names = [f"run_iter_{ITERATIONS}.caffemodel", f"run_ema_iter_{ITERATIONS}.caffemodel"]
    files = {name: (folder / name).read_bytes() for name in names}
    state = snapshots.read_state(folder / f"run_iter_{ITERATIONS}.solverstate")
    files["history"] = b"".join(array.tobytes() for array in state.history)
    losses: dict[int, str] = {}
    for line in (folder / "losses").read_text().splitlines():
        iteration, _, loss = line.partition(" ")
        losses[int(iteration)] = loss
    return files, losses


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def wait_for_writing(folder: Path, limit: float = 0.5) -> None:
    """Return when a half-written file lies in ``folder``, or after ``limit`` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end and not any(folder.glob(".*.partial")):
        time.sleep(0)


def kill_runs(rule: str, kills: int, chance: random.Random, folder: Path) -> Counter[str]:
    """Counts: kills, runs completed, moments at which half-written files lay about."""
    whole, cut = folder / "whole", folder / "cut"
    for each in (whole, cut):
        each.mkdir()
    began = time.monotonic()
    os.waitpid(fork(whole, rule), 0)
    usual = time.monotonic() - began
    expected = results(whole)
    counts: Counter[str] = Counter()
    while counts["kills"] < kills or any(cut.iterdir()):
        pid = fork(cut, rule)
        if counts["kills"] < kills:
            time.sleep(chance.uniform(0, usual * 0.8))
            if chance.random() < 0.5:
                wait_for_writing(cut)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            counts["kills"] += 1
            counts["while writing"] += any(cut.glob(".*.partial"))
            continue
        if status != 0:
            sys.exit(f"{rule}: a run failed instead of continuing; its files are in {cut}")
        if results(cut) != expected:
            sys.exit(f"{rule}: a run ended differently; its files are in {cut} and {whole}")
        counts["completed"] += 1
        clear(cut)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="for each rule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rule", nargs="*", default=["SGD"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked child has none of its parent's threads
    chance = random.Random(arguments.seed)
    for rule in arguments.rule:
        folder = Path(tempfile.mkdtemp(prefix="kill_runs_"))
        counts = kill_runs(rule, arguments.kills, chance, folder)
        for each in (folder / "whole", folder / "cut"):
            clear(each)
            each.rmdir()
        folder.rmdir()
        print(
            f"{rule}: {counts['kills']} kills ({counts['while writing']} while a file was being "
            f"written), {counts['completed']} runs completed, "
            "all identical to the uninterrupted one"
        )


if __name__ == "__main__":
    main()
