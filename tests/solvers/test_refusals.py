"""Solvers that Caffe refuses, and others that cannot work: refused with the line at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.errors import ConfigError
from cortado.proto.text import parse
from cortado.solvers import Solver
from support.solver_goldens import GOLDENS, goldens  # noqa: F401

REFUSED = json.loads((GOLDENS / "errors" / "errors.json").read_text())
FIELD = {
    "rmsprop_decay_one": "rms_decay must be at least 0 and below 1, got 1",
    "unknown_policy": "lr_policy",
    "step_without_stepsize": "stepsize must be greater than 0, but it is not set",
    "negative_gamma": "gamma must be at least 0, got -0.1",
    "unknown_regularization": 'regularization_type must be "L2" or "L1", got "L3"',
    "average_loss_zero": "average_loss must be at least 1, got 0",
    "test_iter_without_interval": "test_interval must be greater than 0",
    "snapshot_without_prefix_dir": "folder 'no_such_dir' does not exist",
}


@pytest.mark.parametrize(
    "case", [case for case in REFUSED if case["aborts"]], ids=lambda c: c["name"]
)
def test_refuses_what_caffe_refuses(case: dict, goldens: Path) -> None:  # noqa: F811
    path = f"errors/{case['file']}"
    if case["name"] == "unknown_policy":  # "cosine" is a policy here
        text = Path(path).read_text().replace("cosine", "cosin")
        source = parse(text, SolverParameter, path)
    else:
        source = path
    with pytest.raises(ConfigError) as caught:
        Solver(source, device="cpu")
    assert FIELD[case["name"]] in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")


BASE = 'net: "nets/mlp_softmax.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 5\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE.replace("base_lr: 0.1", ""), "base_lr must be given, but it is not set"),
        (BASE.replace("fixed", "stepp"), "did you mean 'step'?"),
        (BASE + 'type: "Adma"', "did you mean 'Adam'?"),
        (BASE + 'type: "AdaGrad" momentum: 0.9', "momentum must be 0, got 0.9 (type AdaGrad"),
        (BASE + 'type: "RMSProp" momentum: 0.9', "must be 0; RMSPropMomentum has one, got 0.9"),
        (BASE + 'type: "RMSPropMomentum"', "momentum must be at least 0 and below 1"),
        (BASE + 'train_net: "x"', "names 2 nets to train"),
        (BASE.replace("net:", "weights:"), "names no net to train"),
        (BASE.replace("nets/mlp_softmax", "nets/nothing"), "nets/nothing.prototxt: no such file"),
        (BASE + "test_iter: 1 test_iter: 2 test_interval: 1 test_state {}", "test_state must be"),
        (BASE + 'test_net: "a"', "test_iter must be given once for each test net: got 0 for 1"),
        (BASE + "keep_best: 2", "keep_best needs watch"),
        (BASE + 'param_rule { pattern: "conv*" lr_mult: 0 }', "matches no layer"),
        (BASE + "max_epoch: 3", "max_epoch and max_iter exclude each other"),
        (BASE + 'type: "AdamW" regularization_type: "L1"', 'must be "L2" with type AdamW'),
    ],
)
def test_refuses_what_cannot_work(text: str, said: str, goldens: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError) as caught:
        Solver(parse(text, SolverParameter, "solver.prototxt"), device="cpu")
    assert said in str(caught.value)
    assert caught.value.faults[0].location is not None


def test_reports_all_faults_together(goldens: Path) -> None:  # noqa: F811
    text = 'net: "n" lr_policy: "step" iter_size: 0 type: "What"'
    with pytest.raises(ConfigError) as caught:
        Solver(parse(text, SolverParameter, "solver.prototxt"), device="cpu")
    assert len(caught.value.faults) == 5  # iter_size, type, base_lr, gamma, stepsize
