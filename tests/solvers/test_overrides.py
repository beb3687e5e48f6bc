"""Assignments to solver and net fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cortado.proto.errors import ConfigError
from cortado.proto.files import read_solver
from cortado.proto.state import read_state
from cortado.solvers import Solver, overrides
from support.runs import solver_document
from support.solver_goldens import goldens  # noqa: F401


def test_fields_of_solver_and_net(tmp_path: Path) -> None:
    document = solver_document(tmp_path, "")
    changed = overrides.apply(
        document,
        [
            "base_lr=0.5",
            "type=Adam",
            "snapshot_format=HDF5",
            "stepvalue=3,5",
            "net.ip1.num_output=11",
            "net.ip1.inner_product_param.weight_filler.type=msra",
            "net.drop.dropout_ratio=0.25",
        ],
    )
    assert document.message.base_lr == pytest.approx(0.05)
    assert changed.message.base_lr == 0.5
    assert list(changed.message.stepvalue) == [3, 5]
    assert len(changed.message.override) == 7
    with Solver(changed, device="cpu") as solver:
        assert solver.net.blob_shapes["h"] == (4, 11)
        assert solver.net.layer("ip1").spec.message.inner_product_param.weight_filler.type == "msra"


def test_a_net_in_its_own_file_keeps_its_places(goldens: Path) -> None:  # noqa: F811
    document = read_solver("sgd_plain.prototxt")
    changed = overrides.apply(document, ["net.ip1.num_output=0"])
    assert not changed.message.HasField("net")
    with pytest.raises(ConfigError, match=r"nets/mlp_softmax.prototxt:\d+:\d+"):
        Solver(changed, device="cpu")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("base_rl=1", "has no field 'base_rl'; did you mean 'base_lr'"),
        ("base_lr=fast", "base_lr must be a number, got 'fast'"),
        ("max_iter=1.5", "max_iter must be a whole number"),
        ("solver_mode=TPU", "solver_mode must be one of CPU, GPU, got 'TPU'"),
        ("base_lr", "must have the form FIELD=VALUE"),
        ("base_lr=1 max_iter: 3", "base_lr must be a number"),
        ("net.ip9.num_output=3", "no layer 'ip9'; did you mean"),
        ("net.ip1.num_outputs=3", "no field 'num_outputs'; did you mean 'num_output'"),
        ("train_state=1", "train_state is a message"),
        ("net.ip1.param.lr_mult=3", "param is repeated"),
    ],
)
def test_refuses(assignment: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        overrides.apply(solver_document(tmp_path, ""), [assignment])
    assert said in str(caught.value)


def test_recorded_in_the_snapshot(tmp_path: Path) -> None:
    changed = overrides.apply(solver_document(tmp_path, ""), ["net.ip1.num_output=11"])
    with Solver(changed, device="cpu") as solver:
        solver.solve()
    state = read_state(tmp_path / "run_iter_8.solverstate")
    assert json.loads(str(state.extra["resume"]))["override"] == ["net.ip1.num_output=11"]
