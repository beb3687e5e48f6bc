"""Snapshots: names, formats, exact resumption, damage, locks, failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cortado.netdef import Net
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.errors import ConfigError, ResourceError, SnapshotError
from cortado.proto.state import read_state
from cortado.proto.text import parse
from cortado.proto.weights import read_weights
from cortado.solvers import Solver, events, manifest, rules, snapshots
from cortado.solvers.hooks import Hook
from cortado.solvers.rules import rule_names
from support.runs import everything, identical, small_solver, solver_document

MOMENTS = "momentum: 0.9"
FIELDS = dict.fromkeys(rule_names(), MOMENTS) | {"AdaGrad": "", "RMSProp": ""}


def losses(solver) -> list[tuple[int, float]]:
    """Filled, as the run goes on, with what is displayed."""
    shown: list[tuple[int, float]] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Displayed):
            shown.append((event.iteration, event.loss))

    solver.listeners.append(listen)
    return shown


@pytest.mark.parametrize("rule", rule_names())
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_resumed_run_is_the_uninterrupted_one(rule: str, form: str, tmp_path: Path) -> None:
    fields = (
        f'type: "{rule}" {FIELDS[rule]} weight_decay: 0.01 display: 1 average_loss: 3 '
        f'lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 6 iter_size: 2 '
        f"clip_gradients: 0.5 snapshot_format: {form}"
    )
    ending = ".h5" if form == "HDF5" else ""
    with small_solver(tmp_path, fields) as whole:
        expected_losses = losses(whole)
        whole.solve()
        expected = everything(whole)
    (tmp_path / "cut").mkdir()
    with small_solver(tmp_path / "cut", fields) as first:
        first.step(4)
        first.snapshot()
    with small_solver(tmp_path / "cut", fields) as second:
        shown = losses(second)
        second.solve(tmp_path / "cut" / f"run_iter_4.solverstate{ending}")
        assert identical(everything(second), expected)
    assert shown == expected_losses[4:8]


@pytest.mark.gpu
@pytest.mark.parametrize("rule", rule_names())
def test_resumed_on_cuda_with_deterministic_algorithms(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fields = f'type: "{rule}" {FIELDS[rule]} weight_decay: 0.01 iter_size: 2 clip_gradients: 0.5'
    (tmp_path / "cut").mkdir()
    torch.use_deterministic_algorithms(True)
    try:
        with Solver(solver_document(tmp_path, fields), device="cuda") as whole:
            whole.solve()
            expected = everything(whole)
        with Solver(solver_document(tmp_path / "cut", fields), device="cuda") as first:
            first.step(4)
            first.snapshot()
        with Solver(solver_document(tmp_path / "cut", fields), device="cuda") as second:
            second.solve(tmp_path / "cut" / "run_iter_4.solverstate")
            assert identical(everything(second), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_names_and_content(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    with small_solver(tmp_path, "snapshot: 4 momentum: 0.9", listeners=[seen.append]) as solver:
        solver.solve()
        weights = everything(solver)[:4]
    names = sorted(path.name for path in tmp_path.iterdir())
    expected = [f"run_iter_{n}.{kind}" for n in (4, 8) for kind in ("caffemodel", "solverstate")]
    assert names == [*expected, "run_snapshots.json"]
    layers = {layer.name: layer for layer in read_weights(tmp_path / "run_iter_8.caffemodel")}
    assert (layers["ip1"].blobs[0].data == weights[0].numpy()).all()
    state = read_state(tmp_path / "run_iter_8.solverstate")
    assert (state.iter, state.learned_net) == (8, f"{tmp_path}/run_iter_8.caffemodel")
    assert len(state.history) == 4
    written = [event for event in seen if isinstance(event, events.SnapshotWritten)]
    assert [event.iteration for event in written] == [4, 8]


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_safetensors_beside_the_weights(form: str, tmp_path: Path) -> None:
    fields = f"snapshot_safetensors: true ema_decay: 0.9 snapshot_format: {form}"
    with small_solver(tmp_path, fields) as solver:
        solver.solve()
        expected = {param.name: param.tensor.detach() for param in solver.net.params}
    found = load_file(tmp_path / "run_iter_8.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    averaged = load_file(tmp_path / "run_ema_iter_8.safetensors")
    assert not torch.equal(averaged["ip1.weight"], expected["ip1.weight"])
    assert "run_iter_8.safetensors" in manifest.read(f"{tmp_path}/run")
    with small_solver(tmp_path) as again:
        again.net.load(tmp_path / "run_iter_8.safetensors")
        assert identical(everything(again)[:4], list(expected.values()))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ("", None),
        ("snapshot_diff: true", "the weights would take 3,20"),
        ('type: "Adam" momentum: 0.9', "the solver state would take 3,20"),
        ('type: "Adam" momentum: 0.9 snapshot_format: HDF5', None),
        ("snapshot_diff: true snapshot_after_train: false", None),
    ],
)
def test_what_protobuf_cannot_hold_is_refused_before_training(
    fields: str, fault: str | None, tmp_path: Path
) -> None:
    """400 million parameters, which take no memory on the meta device."""
    wide = """
      layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 20000 } } }
      layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 20000 } }"""
    net = Net(parse(wide, NetParameter), "TRAIN", device="meta")
    document = solver_document(tmp_path, fields)
    slots = rules.find(document.message.type).slots
    if fault is None:
        snapshots.check_size(document, net, slots)
        return
    with pytest.raises(ConfigError, match=f"snapshot_format must be HDF5: {fault}"):
        snapshots.check_size(document, net, slots)


def test_final_snapshot_only_where_wanted(tmp_path: Path) -> None:
    with small_solver(tmp_path, "snapshot_after_train: false") as solver:
        solver.solve()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("victim", ["run_iter_6.caffemodel", "run_iter_6.solverstate"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_latest_passes_over_what_is_damaged(victim: str, damage: str, tmp_path: Path) -> None:
    with small_solver(tmp_path, "snapshot: 3 max_iter: 6") as solver:
        solver.solve()
    path = tmp_path / victim
    raw = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    rejected: list[str] = []
    found = manifest.find_latest(f"{tmp_path}/run", rejected)
    assert found == tmp_path / "run_iter_3.solverstate"
    if not (damage == "missing" and victim.endswith("state")):
        assert "run_iter_6" in rejected[0]
    if damage != "missing":
        with (
            small_solver(tmp_path) as again,
            pytest.raises(SnapshotError, match=r"bytes|damaged"),
        ):
            again.restore(tmp_path / "run_iter_6.solverstate")


def test_no_snapshot_means_none(tmp_path: Path) -> None:
    assert manifest.find_latest(f"{tmp_path}/run") is None
    assert manifest.find_latest(f"{tmp_path}/no/run") is None


def test_edited_solver_and_net_are_named(tmp_path: Path) -> None:
    with small_solver(tmp_path, "momentum: 0.9") as solver:
        solver.solve()
    state = tmp_path / "run_iter_8.solverstate"
    with small_solver(tmp_path, "momentum: 0.8 display: 3 delta: 0.1") as edited:
        with pytest.raises(SnapshotError) as caught:
            edited.restore(state)
        assert "solver field momentum" in str(caught.value)
        assert "solver field delta (new)" in str(caught.value)
        assert "display" not in str(caught.value)
        assert edited.iteration == 0
        edited.restore(state, accept_changes=True)
        assert edited.iteration == 8


@pytest.mark.parametrize(("policy", "matters"), [("fixed", False), ("linear", True)])
def test_a_longer_run_is_another_one_where_the_rate_depends_on_it(
    policy: str, matters: bool, tmp_path: Path
) -> None:
    with small_solver(tmp_path, f'lr_policy: "{policy}"') as solver:
        solver.solve()
    with small_solver(tmp_path, f'lr_policy: "{policy}" max_iter: 10') as longer:
        if matters:
            with pytest.raises(SnapshotError, match="solver field max_iter"):
                longer.solve(tmp_path / "run_iter_8.solverstate")
        else:
            assert longer.solve(tmp_path / "run_iter_8.solverstate").iteration == 10


def test_other_solver_type_is_refused(tmp_path: Path) -> None:
    with small_solver(tmp_path, "momentum: 0.9") as solver:
        solver.solve()
    with (
        small_solver(tmp_path, 'type: "Adam" momentum: 0.9') as adam,
        pytest.raises(SnapshotError, match=r"holds 4 history blobs.*needs 8"),
    ):
        adam.restore(tmp_path / "run_iter_8.solverstate", accept_changes=True)


def test_second_run_on_a_prefix_is_refused(tmp_path: Path) -> None:
    class Rival(Hook):
        """Tries to train with the same prefix while the first run is at work."""

        def after_update(self, solver, iteration) -> None:
            with (
                small_solver(tmp_path) as second,
                pytest.raises(ResourceError, match=f"process {os.getpid()}"),
            ):
                second.solve()

    with small_solver(tmp_path) as first:
        first.hooks.append(Rival())
        assert first.solve().iteration == 8
    with small_solver(tmp_path) as third:
        assert third.solve().iteration == 8


def test_without_prefix_steps_work_and_solving_is_refused(tmp_path: Path) -> None:
    document = solver_document(tmp_path, "")
    document.message.ClearField("snapshot_prefix")
    with Solver(document, device="cpu") as solver:
        solver.step(2)
        with pytest.raises(ConfigError, match="snapshot_prefix must be given"):
            solver.solve()
        with pytest.raises(ConfigError, match="need a snapshot_prefix"):
            solver.snapshot()


def test_leftover_lock_and_half_files_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text("process 1 on nowhere")
    half = tmp_path / ".run_iter_4.caffemodel.123.abcd.partial"
    other = tmp_path / ".other_iter_4.caffemodel.123.abcd.partial"
    half.write_text("half")
    other.write_text("another run's")
    with small_solver(tmp_path) as solver:
        solver.solve()
    assert not half.exists()
    assert other.exists()
    assert not (tmp_path / "run.lock").exists()


def failing(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Let writing the state of one iteration fail as on a full disk."""
    from cortado.solvers import snapshots

    write = snapshots.write_state

    def full(path: Path, state: object) -> None:
        if f"iter_{iteration}." in str(path):
            raise OSError(28, "No space left on device")
        write(path, state)

    monkeypatch.setattr(snapshots, "write_state", full)


def test_failing_snapshot_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing(monkeypatch, 4)
    seen: list[events.Event] = []
    with small_solver(tmp_path, "snapshot: 4", listeners=[seen.append]) as solver:
        assert solver.solve().iteration == 8
    (failed,) = [event for event in seen if isinstance(event, events.SnapshotFailed)]
    assert "No space left" in failed.reason
    assert (tmp_path / "run_iter_8.solverstate").exists()


def test_failing_final_snapshot_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing(monkeypatch, 8)
    with (
        small_solver(tmp_path, "snapshot: 4") as solver,
        pytest.raises(ResourceError, match="final snapshot"),
    ):
        solver.solve()
    assert (tmp_path / "run_iter_4.solverstate").exists()


def test_snapshot_diff_is_what_the_update_subtracted(tmp_path: Path) -> None:
    with small_solver(tmp_path, 'type: "Nesterov" momentum: 0.9 snapshot_diff: true') as solver:
        solver.step(3)
        before = everything(solver)[0]
        solver.step(1)
        solver.snapshot()
        after = everything(solver)[0]
    layers = {layer.name: layer for layer in read_weights(tmp_path / "run_iter_4.caffemodel")}
    difference = layers["ip1"].blobs[0].diff
    assert difference is not None
    assert abs(difference - (before - after).numpy()).max() < 1e-6
