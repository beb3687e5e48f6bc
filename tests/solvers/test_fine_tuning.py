"""Fine-tuning: new heads, frozen trunks, the table of what was copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.proto.errors import ConfigError, WeightsError
from cortado.proto.weights import read_weights
from cortado.solvers import Solver, events, fine_tuning
from support.runs import small_solver, solver_document


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    with small_solver(tmp_path) as solver:
        solver.step(2)
        solver.net.save(tmp_path / "trained.caffemodel")
    return tmp_path / "trained.caffemodel"


def test_another_head_starts_anew_and_the_rest_is_copied(tmp_path: Path, trained: Path) -> None:
    document = fine_tuning.with_head(solver_document(tmp_path, ""), "ip2", 3)
    seen: list[events.Event] = []
    listeners = [seen.append]
    with Solver(
        document, device="cpu", weights=[trained], fresh=["ip2"], listeners=listeners
    ) as solver:
        (loaded,) = [event for event in seen if isinstance(event, events.WeightsLoaded)]
        assert loaded.table == (
            ("copied", ("ip1",)),
            ("re-initialised as asked", ("ip2",)),
        )
        stored = {layer.name: layer.blobs for layer in read_weights(trained)}
        now = {layer.name: layer.blobs for layer in solver.net.layer_blobs()}
        assert np.array_equal(now["ip1"][0].data, stored["ip1"][0].data)
        assert not np.array_equal(now["ip2"][0].data, stored["ip2"][0].data)


def test_a_head_of_other_size_must_be_named(tmp_path: Path, trained: Path) -> None:
    document = fine_tuning.with_head(solver_document(tmp_path, ""), "ip1", 5)
    with pytest.raises(WeightsError, match=r"--fresh LAYER, --head LAYER"):
        Solver(document, device="cpu", weights=[trained])
    with pytest.raises(WeightsError, match="none of its layers"):
        Solver(document, device="cpu", weights=[trained], fresh=["ip*"])


def test_patterns_that_match_nothing_are_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"'ip3' matches no layer.*did you mean"):
        small_solver(tmp_path, weights=[trained], fresh=["ip3"])
    document = solver_document(tmp_path, "")
    with pytest.raises(ConfigError, match="no layer 'ip9'"):
        fine_tuning.with_head(document, "ip9", 2)


def test_frozen_layers_neither_learn_nor_take_part_in_the_backward_pass(tmp_path: Path) -> None:
    document = fine_tuning.frozen(solver_document(tmp_path, ""), ["ip1"])
    with Solver(document, device="cpu") as solver:
        frozen = [p.tensor.clone() for p in solver.net.params if p.layer == "ip1"]
        learned = [p.tensor.clone() for p in solver.net.params if p.layer == "ip2"]
        solver.net.keep_blobs = True
        solver.net(**solver.net.next_batch())
        assert not solver.net.blobs["h"].requires_grad  # no graph is kept for the trunk
        solver.step(2)
        after = {name: [p.tensor for p in solver.net.params if p.layer == name]
                 for name in ("ip1", "ip2")}  # fmt: skip
    assert all(map(torch.equal, frozen, after["ip1"]))
    assert not any(map(torch.equal, learned, after["ip2"]))


def test_frozen_normalisation_keeps_its_statistics(tmp_path: Path) -> None:
    net = """
      layer { name: "in" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 6 } shape { dim: 4 dim: 6 }
          data_filler { type: "gaussian" } data_filler { type: "gaussian" } } }
      layer { name: "norm" type: "BatchNorm" bottom: "data" top: "n" }
      layer { name: "ip" type: "InnerProduct" bottom: "n" top: "o"
        inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
      layer { name: "loss" type: "EuclideanLoss" bottom: "o" bottom: "label" top: "loss" }"""
    document = fine_tuning.frozen(solver_document(tmp_path, "", net), ["norm"])
    with Solver(document, device="cpu") as solver:
        solver.step(2)
        assert float(solver.net.layer("norm").layer.scale_factor) == 0
    assert not solver_document(tmp_path, "", net).message.param_rule
