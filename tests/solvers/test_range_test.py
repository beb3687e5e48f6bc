"""The range test's arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cortado.solvers import Solver, range_test
from cortado.solvers.range_test import RangeTest
from support.runs import everything, identical, solver_document


def entered(losses: list[float]) -> tuple[RangeTest, bool]:
    test = RangeTest()
    alive = True
    for number, loss in enumerate(losses):
        alive = test.add(10.0 ** (number / 10), loss)
        if not alive:
            break
    return test, alive


def test_constant_loss_is_smoothed_to_itself() -> None:
    test, alive = entered([2.0] * 20)
    assert alive
    assert test.smooth == pytest.approx([2.0] * 20)


def test_rising_loss_suggests_nothing() -> None:
    test, alive = entered([2 + 0.1 * n for n in range(20)])
    assert alive
    assert test.suggestion is None


def test_suggestion_is_where_the_loss_falls_fastest() -> None:
    losses = [3 - 2 / (1 + math.exp(15 - n)) + 0.0002 * 1.25**n for n in range(40)]
    test, _ = entered(losses)
    assert test.suggestion is not None
    assert 14 <= round(10 * math.log10(test.suggestion)) <= 20
    assert test.suggestion < test.best


@pytest.mark.parametrize("end", [math.nan, math.inf, 1e6])
def test_divergence_ends_the_test(end: float) -> None:
    test, alive = entered([2.0] * 10 + [end] * 5)
    assert not alive
    assert len(test.losses) <= 11
    assert all(map(math.isfinite, test.smooth))


def test_rates_grow_exponentially_and_the_document_is_left_alone(tmp_path: Path) -> None:
    document = solver_document(tmp_path, "test_iter: 2 test_interval: 2 snapshot: 2 display: 1")
    before = document.message.SerializeToString()
    ramp = range_test.ramp(document, 1e-5, 1e-1, 21)
    with Solver(ramp, device="cpu") as solver:
        start = everything(solver)
        found = range_test.run(solver, 21)
        assert not identical(start, everything(solver))
    assert document.message.SerializeToString() == before
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.rates[20] == pytest.approx(1e-1, rel=1e-4)
    assert found.rates[10] == pytest.approx(1e-3, rel=1e-4)
    assert list(tmp_path.iterdir()) == []
