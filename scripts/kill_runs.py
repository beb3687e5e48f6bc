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
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto.caffe_pb2 import Datum, SolverParameter
from cortado.proto.positions import Document
from cortado.proto.text import parse
from cortado.solvers import Solver, events, snapshots

RECORDS = 50
ITERATIONS = 30


def net(database: Path) -> str:
    """Shuffled, cropped and mirrored records, prepared by threads, and dropout."""
    return f"""
    name: "kill"
    layer {{ name: "train" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
      transform_param {{ crop_size: 10 mirror: true scale: 0.01 }}
      data_param {{ source: "{database}" batch_size: 16 backend: LMDB shuffle: true threads: 2 }} }}
    layer {{ name: "test" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
      transform_param {{ crop_size: 10 scale: 0.01 }}
      data_param {{ source: "{database}" batch_size: 10 backend: LMDB }} }}
    layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "h"
      inner_product_param {{ num_output: 300 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "drop" type: "Dropout" bottom: "h" top: "h" }}
    layer {{ name: "act" type: "TanH" bottom: "h" top: "h" }}
    layer {{ name: "ip2" type: "InnerProduct" bottom: "h" top: "o"
      inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "o" bottom: "label" top: "loss" }}
    """


FIELDS = f"""
    base_lr: 0.01 lr_policy: "inv" gamma: 0.01 power: 0.75
    max_iter: {ITERATIONS} random_seed: 5 solver_mode: CPU weight_decay: 0.001 iter_size: 2
    snapshot: 2 display: 1 average_loss: 5 test_iter: 2 test_interval: 10 ema_decay: 0.9
"""
WITHOUT_MOMENTUM = ("AdaGrad", "RMSProp")
DATABASE = "records"


def document(folder: Path, rule: str) -> Document[SolverParameter]:
    momentum = "" if rule in WITHOUT_MOMENTUM else "momentum: 0.9"
    text = (
        f'net_param {{ {net(folder.parent / DATABASE)} }} {FIELDS} type: "{rule}" {momentum} '
        f'snapshot_prefix: "{folder}/run"'
    )
    return parse(text, SolverParameter, "solver.prototxt")


def write_records(path: Path) -> None:
    """A database of random pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (RECORDS, 3, 12, 12), np.uint8)
    with LmdbWriter(path) as writer:
        for number, picture in enumerate(pixels):
            datum = Datum(channels=3, height=12, width=12, data=picture.tobytes())
            datum.label = number % 10
            writer.put(b"%04d" % number, datum.SerializeToString())


def warm_up(folder: Path, rule: str) -> None:
    """Have everything imported that a run needs, once for all forks.

    No thread may be started here, by a data source, backward or a snapshot: a fork has none.
    """
    with Solver(document(folder, rule), device="cpu") as solver, torch.no_grad():
        solver.net.run({name: torch.zeros(shape) for name, shape in solver.net.inputs.items()})


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
    write_records(folder / DATABASE)
    warm_up(whole, rule)
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
        shutil.rmtree(folder)  # kept where a run ended differently
        print(
            f"{rule}: {counts['kills']} kills ({counts['while writing']} while a file was being "
            f"written), {counts['completed']} runs completed, "
            "all identical to the uninterrupted one",
            flush=True,
        )


if __name__ == "__main__":
    main()
