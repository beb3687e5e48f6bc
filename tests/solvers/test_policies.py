"""Learning-rate policies as literal lists, and against the rates Caffe used."""

from __future__ import annotations

import pytest

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.positions import Document
from cortado.solvers import policies


def rates(count: int, **fields) -> list[float]:
    return [round(rate, 5) for rate in policies.schedule(SolverParameter(**fields), count)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"lr_policy": "fixed"}, [1, 1, 1, 1, 1]),
        ({"lr_policy": "step", "gamma": 0.5, "stepsize": 2}, [1, 1, 0.5, 0.5, 0.25]),
        ({"lr_policy": "exp", "gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625]),
        ({"lr_policy": "inv", "gamma": 1, "power": 2}, [1, 0.25, 0.11111, 0.0625, 0.04]),
        ({"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [1, 3]}, [1, 0.5, 0.5, 0.25, 0.25]),
        # Two equal values take two evaluations, as in Caffe.
        ({"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [2, 2]}, [1, 1, 0.5, 0.25, 0.25]),
        ({"lr_policy": "poly", "power": 2, "max_iter": 4}, [1, 0.5625, 0.25, 0.0625, 0]),
        (
            {"lr_policy": "sigmoid", "gamma": 1, "stepsize": 2},
            [0.1192, 0.26894, 0.5, 0.73106, 0.8808],
        ),
        ({"lr_policy": "linear", "max_iter": 4, "min_lr": 0.5}, [1, 0.875, 0.75, 0.625, 0.5]),
        ({"lr_policy": "cosine", "max_iter": 4}, [1, 0.85355, 0.5, 0.14645, 0]),
        ({"lr_policy": "cosine", "max_iter": 9, "restart_iter": 2}, [1, 0.5, 1, 0.5, 1]),
        (
            {"lr_policy": "cosine", "max_iter": 9, "restart_iter": 1, "restart_mult": 2},
            [1, 1, 0.5, 1, 0.85355],
        ),
        (
            {"lr_policy": "onecycle", "max_iter": 8, "peak_fraction": 0.25, "start_divisor": 5},
            [0.2, 0.6, 1, 0.93301, 0.75],
        ),
        ({"lr_policy": "plateau", "gamma": 0.5}, [1, 1, 1, 1, 1]),
        ({"lr_policy": "fixed", "warmup_iter": 4}, [0, 0.25, 0.5, 0.75, 1]),
        ({"lr_policy": "fixed", "warmup_iter": 2, "warmup_start": 0.5}, [0.5, 0.75, 1, 1, 1]),
    ],
)
def test_rates(fields: dict, expected: list[float]) -> None:
    assert rates(5, base_lr=1.0, **fields) == expected


def test_every_policy_has_a_literal_list() -> None:
    (mark,) = [mark for mark in test_rates.pytestmark if mark.name == "parametrize"]
    assert {fields["lr_policy"] for fields, _ in mark.args[1]} == set(policies.policy_names())


def test_plateau_follows_its_step_counter_down_to_min_lr() -> None:
    solver = SolverParameter(lr_policy="plateau", base_lr=1, gamma=0.5, min_lr=0.3)
    assert [policies.learning_rate(0, solver, step).value for step in range(4)] == pytest.approx(
        [1, 0.5, 0.3, 0.3]
    )


def test_huge_values_overflow_to_infinity_instead_of_failing() -> None:
    assert rates(3, lr_policy="exp", base_lr=1, gamma=1e30)[-1] > 1e50
    solver = SolverParameter(lr_policy="exp", base_lr=1, gamma=1e30)
    assert policies.learning_rate(1000, solver).value == float("inf")
    sigmoid = SolverParameter(lr_policy="sigmoid", base_lr=1, gamma=100, stepsize=10**6)
    assert policies.learning_rate(0, sigmoid).value == 0


@pytest.mark.parametrize("name", policies.policy_names())
def test_names_all_missing_fields(name: str) -> None:
    found = {
        str(fault).split(" ")[0]
        for fault in policies.check(Document(SolverParameter(lr_policy=name)))
    }
    assert "base_lr" in found
    if name not in ("fixed",):
        assert len(found) > 1
