"""Solvers through the Python interface: the same training as the solver's own, and its parts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.solvers import Solver
from cortado.tools import pycaffe as caffe
from support.pycaffe_nets import write_solver

RULES = {
    "SGD": caffe.SGDSolver,
    "Nesterov": caffe.NesterovSolver,
    "AdaGrad": caffe.AdaGradSolver,
    "RMSProp": caffe.RMSPropSolver,
    "AdaDelta": caffe.AdaDeltaSolver,
    "Adam": caffe.AdamSolver,
}


def weights(net: caffe.Net) -> list[np.ndarray]:
    return [blob.data.copy() for blobs in net.params.values() for blob in blobs]


@pytest.mark.parametrize("more", ["", "iter_size: 3 clip_gradients: 0.5 weight_decay: 0.1"])
def test_training_is_that_of_the_solver_itself(tmp_path: Path, more: str) -> None:
    path = write_solver(tmp_path, more)
    facade = caffe.get_solver(path)
    facade.solve()
    own = Solver(path, sigint="none", sighup="none")
    own.solve()
    assert facade.iter == 5
    for mine, param in zip(weights(facade.net), own.net.params, strict=True):
        np.testing.assert_allclose(mine, param.tensor.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_class_decides_the_rule(tmp_path: Path, rule: str) -> None:
    more = 'type: "Nesterov"' if rule == "SGD" else ""
    path = write_solver(tmp_path, f"{more} momentum2: 0.9 rms_decay: 0.9")
    if rule in ("AdaGrad", "RMSProp"):
        Path(path).write_text(Path(path).read_text().replace("momentum: 0.5", ""))
    solver = RULES[rule](path)
    before = weights(solver.net)
    solver.step(2)
    assert solver.param.type == rule
    assert solver.iter == 2
    assert all(not np.array_equal(a, b) for a, b in zip(before, weights(solver.net), strict=True))
    named = Path(path).read_text().replace('type: "Nesterov"', "") + f'type: "{rule}"'
    Path(path).write_text(named)
    assert type(caffe.get_solver(path)) is RULES[rule]


def test_a_script_may_make_the_passes_and_updates_itself(tmp_path: Path) -> None:
    path = write_solver(tmp_path)
    stepped, driven = caffe.SGDSolver(path), caffe.SGDSolver(path)
    driven.net.params["ip1"][0].data[...] = stepped.net.params["ip1"][0].data
    stepped.step(4)
    for _ in range(4):
        driven.net.clear_param_diffs()
        driven.net.forward()
        driven.net.backward()
        driven.apply_update()
    assert driven.iter == 4
    for mine, other in zip(weights(driven.net), weights(stepped.net), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_everything_is_there_after_a_step(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path))
    held = solver.net.params["ip1"][0].diff
    solver.step(1)
    assert solver.net.blobs["loss"].data > 0
    assert solver.net.blobs["ip2"].diff.any()
    assert held.any()
    first = held.copy()
    solver.step(1)
    assert not np.array_equal(first, held)


def test_rates_follow_the_policy_and_can_be_set(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path))
    rates = []
    for _ in range(4):
        rates.append(solver.lr)
        solver.step(1)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    solver.param.base_lr = 100
    assert solver.lr == pytest.approx(1)
    assert (solver.param.max_iter, solver.param.display) == (5, 0)


def test_callbacks_of_the_solver_and_of_its_net(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path, "iter_size: 2"))
    calls: list[str] = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("ready"))
    solver.net.after_backward(lambda index: calls.append("net") if index == 0 else None)
    solver.step(2)
    assert calls == ["start", "net", "net", "ready"] * 2


def test_test_nets_see_the_trained_parameters(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path, "test_iter: 2 test_interval: 2"))
    (test_net,) = solver.test_nets
    solver.step(3)
    assert np.shares_memory(test_net.params["ip1"][0].data, solver.net.params["ip1"][0].data)
    assert test_net.blobs["loss"].data > 0
    other = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    solver.share_weights(other)
    assert np.shares_memory(other.params["ip2"][1].data, solver.net.params["ip2"][1].data)


def test_labels_written_into_constant_data_stay(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path))
    solver.net.blobs["label"].data[...] = [0, 1, 2, 0]
    solver.step(2)
    assert solver.net.blobs["label"].data.tolist() == [0, 1, 2, 0]


def test_snapshots_are_written_and_restored(tmp_path: Path) -> None:
    path = write_solver(tmp_path)
    solver = caffe.SGDSolver(path)
    solver.step(2)
    solver.snapshot()
    assert (tmp_path / "snap_iter_2.caffemodel").is_file()
    state = str(tmp_path / "snap_iter_2.solverstate")
    solver.solve()
    resumed = caffe.SGDSolver(path)
    resumed.solve(state)
    restored = caffe.SGDSolver(path)
    restored.restore(state)
    assert restored.iter == 2
    for mine, other in zip(weights(resumed.net), weights(solver.net), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5)


def test_the_seed_of_the_process_decides_where_the_file_states_none(tmp_path: Path) -> None:
    path = write_solver(tmp_path)
    Path(path).write_text(Path(path).read_text().replace("random_seed: 3", ""))
    found = []
    for seed in (1, 1, 2):
        caffe.set_random_seed(seed)
        found.append(caffe.SGDSolver(path).net.params["ip1"][0].data.copy())
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_what_caffe_refuses_is_a_runtime_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not open file"):
        caffe.SGDSolver(str(tmp_path / "none"))
    path = write_solver(tmp_path)
    with pytest.raises(RuntimeError, match="Could not open file"):
        caffe.SGDSolver(path).restore(str(tmp_path / "none"))
    Path(path).write_text("base_lr: 1")
    with pytest.raises(RuntimeError, match="net"):
        caffe.get_solver(path)


def test_the_log_is_caffes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    caffe.init_log(0, True)
    caffe.SGDSolver(write_solver(tmp_path, "display: 2")).step(3)
    caffe.log("a line of the script")
    lines = capfd.readouterr().err.splitlines()
    assert any(re.search(r"^I\d{4} .*\] Iteration 2 .*loss = ", line) for line in lines)
    assert lines[-1].endswith("] a line of the script")
    caffe.init_log(2, True)
    caffe.log("not shown")
    assert not capfd.readouterr().err
    caffe.init_log(0, True)


def test_one_process_stands_where_several_did(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path))
    uid = caffe.NCCL.new_uid()
    assert isinstance(uid, bytes)
    assert not caffe.has_nccl()
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    solver.add_callback(nccl)
    solver.net.after_backward(nccl)
    solver.step(1)
    caffe.set_solver_count(2)
    try:
        with pytest.raises(RuntimeError, match="2 times the iter_size"):
            caffe.NCCL(solver, uid)
    finally:
        caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(False)
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)


def test_time_is_measured() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    torch.randn(100, 100) @ torch.randn(100, 100)
    timer.stop()
    assert timer.ms > 0
    assert timer.ms == timer.ms
