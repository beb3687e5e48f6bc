"""What the solver tests share: where the goldens are, and how a golden case is set up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.solvers import Solver

GOLDENS = Path(__file__).resolve().parent.parent / "goldens" / "solvers"


@pytest.fixture
def goldens(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Caffe's recorded runs, which is also made the working directory."""
    monkeypatch.chdir(GOLDENS)
    return GOLDENS


def set_parameters(solver: Solver, values: dict[str, np.ndarray]) -> None:
    """Copy arrays by "<layer>/<index>" into the train net."""
    with torch.no_grad():
        for key, value in values.items():
            layer, index = key.rsplit("/", 1)
            solver.net.layer(layer).layer.blob(int(index)).copy_(torch.from_numpy(value))


def assert_close(found: object, expected: np.ndarray, rtol: float, what: str) -> None:
    """The goldens' measure: the largest difference against the largest magnitude."""
    found = np.asarray(found.detach() if isinstance(found, torch.Tensor) else found)
    assert found.shape == expected.shape, what
    limit = rtol * np.abs(expected).max(initial=0) + 1e-7
    assert np.abs(found - expected).max(initial=0) <= limit, what
