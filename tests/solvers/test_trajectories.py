"""Every recorded run of Caffe's solvers: weights, history, rate, loss, and runs that resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cortado.solvers import Solver
from cortado.solvers.hooks import Hook
from support.solver_goldens import GOLDENS, assert_close, goldens, set_parameters  # noqa: F401

CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))


class Recorder(Hook):
    """Notes every loss and rate."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def before_update(self, solver, iteration) -> None:
        self.losses.append(float(iteration.loss))
        self.rates.append(iteration.rate)


def compare(solver: Solver, golden: dict[str, np.ndarray], run: str, iteration: int) -> None:
    """Hold weights and, where recorded, history after ``iteration`` updates against Caffe's."""
    rtol = 1e-5 if iteration == 1 else 1e-4
    weights, history = f"{run}params@{iteration}/", f"{run}history@{iteration}/"
    compared = 0
    for key, expected in golden.items():
        if key.startswith(weights):
            layer, index = key.removeprefix(weights).rsplit("/", 1)
            found = solver.net.layer(layer).layer.blob(int(index))
        elif key.startswith(history):
            found = solver.updater.history_list()[int(key.removeprefix(history))]
        else:
            continue
        assert_close(found, expected, rtol, key)
        compared += 1
    assert compared >= len(solver.net.params)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(f"{name}.npz") as file:
        return {key: file[key] for key in file}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_caffe(name: str, goldens: Path) -> None:  # noqa: F811
    golden = load(name)
    with Solver(f"{name}.prototxt", device="cpu") as solver:
        start = {k.removeprefix("params@0/"): v for k, v in golden.items() if "params@0/" in k}
        set_parameters(solver, start)
        recorder = Recorder()
        solver.hooks.append(recorder)
        recorded = sum(key.startswith("history@20/") for key in golden)
        assert len(solver.updater.history_list()) == recorded
        for iteration in (1, 2, 5, 10, 20):
            solver.step(iteration - solver.iteration)
            compare(solver, golden, "", iteration)
        assert_close(recorder.losses, golden["loss"], 1e-4, "loss")
        assert_close(recorder.rates, golden["lr"], 1e-6, "lr")


@pytest.mark.parametrize("name", [name for name in CASES if "resume" in name])
def test_resumes_from_caffes_snapshot(name: str, goldens: Path) -> None:  # noqa: F811
    golden = load(name)
    with Solver(f"{name}.prototxt", device="cpu") as solver:
        solver.restore(str(golden["resume_state"]))
        assert solver.iteration == 10
        recorder = Recorder()
        solver.hooks.append(recorder)
        for iteration in (11, 12, 15, 20):
            solver.step(iteration - solver.iteration)
            compare(solver, golden, "resume/", iteration)
        assert_close(recorder.losses, golden["resume/loss"], 1e-4, "loss")
        assert_close(recorder.rates, golden["resume/lr"], 1e-6, "lr")


def test_every_rule_of_caffe_is_among_the_cases(goldens: Path) -> None:  # noqa: F811
    types = {json.loads(str(load(name)["meta"]))["type"] for name in CASES}
    assert types - {"(enum)"} == {"SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"}
