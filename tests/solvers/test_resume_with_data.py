"""Exact resumption with data threads at work: mid-epoch, at an epoch's end, with test nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto.caffe_pb2 import Datum
from cortado.proto.errors import ConfigError, NumericError
from cortado.solvers import Solver, diagnosis, events
from cortado.solvers.hooks import Hook
from support.runs import everything, identical, small_solver

RECORDS = 12


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    random = np.random.default_rng(0)
    with LmdbWriter(path) as writer:
        for number in range(RECORDS):
            pixels = random.integers(0, 256, (3, 8, 8), np.uint8)
            datum = Datum(channels=3, height=8, width=8, data=pixels.tobytes(), label=number % 3)
            writer.put(b"%08d" % number, datum.SerializeToString())
    return path


def data_solver(folder: Path, database: Path, text: str, **arguments) -> Solver:
    """A solver whose net reads ``database`` in both phases, with crops and mirrors in training."""
    net = f"""
      name: "images"
        layer {{ name: "train" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
          transform_param {{ crop_size: 6 mirror: true scale: 0.01 }}
          data_param {{ source: "{database}" batch_size: 4 backend: LMDB }} }}
        layer {{ name: "test" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
          transform_param {{ crop_size: 6 scale: 0.01 }}
          data_param {{ source: "{database}" batch_size: 5 backend: LMDB }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "o"
          inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "o" bottom: "label" top: "loss" }}
    """
    folder.mkdir(exist_ok=True)
    return small_solver(folder, text, net=net, **arguments)


def shown(solver: Solver) -> list[tuple[int, float]]:
    """Filled with what is displayed and tested."""
    values: list[tuple[int, float]] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Displayed):
            values.append((event.iteration, event.loss))
        elif isinstance(event, events.TestFinished):
            values.append((event.iteration, event.outputs[0].value))

    solver.listeners.append(listen)
    return values


@pytest.mark.parametrize("iter_size", [1, 2])
@pytest.mark.parametrize("cut", [2, 3, 4, 6])
def test_samples_and_values_are_those_of_the_whole_run(
    cut: int, iter_size: int, tmp_path: Path, database: Path
) -> None:
    text = f"""momentum: 0.9 display: 1 average_loss: 3 iter_size: {iter_size}
        test_iter: 2 test_interval: 2"""
    with data_solver(tmp_path / "whole", database, text) as whole:
        expected_values = shown(whole)
        whole.solve()
        expected = everything(whole)
    with data_solver(tmp_path / "cut", database, text) as first:
        first.step(cut)
        first.snapshot()
    with data_solver(tmp_path / "cut", database, text) as second:
        values = shown(second)
        second.solve(tmp_path / "cut" / f"run_iter_{cut}.solverstate")
        assert identical(everything(second), expected)
    assert values == [each for each in expected_values if each[0] >= cut]


def test_nan_names_the_records_of_its_batch(tmp_path: Path, database: Path) -> None:
    class Poison(Hook):
        def after_update(self, solver, iteration) -> None:
            if solver.iteration == 4:
                solver.net.params[0].tensor.data.view(-1)[0] = np.nan

    with data_solver(tmp_path / "run", database, "iter_size: 3") as solver:
        solver.hooks.append(Poison())
        with pytest.raises(NumericError) as caught:
            solver.solve()
    message = str(caught.value)
    # Four iterations of three passes of four records end where the records start again.
    assert "batch: 00000000, 00000001, 00000002, 00000003;" in message
    bundle = tmp_path / "run" / "run_not_finite_iter_4"
    assert (bundle / "keys").read_text().split() == [f"{n:08}" for n in range(4)]
    database.rename(tmp_path / "elsewhere")  # the bundle does without its data
    assert "its weights (ip.weight) are not finite" in diagnosis.replay(bundle).first


def test_epochs_and_whole_test_sets(tmp_path: Path, database: Path) -> None:
    text = "max_epoch: 4 test_epoch: 1 snapshot_epoch: 2 iter_size: 2 test_iter: 0"
    # A policy that ends with the run takes its length from the epochs.
    text += ' lr_policy: "linear"'
    with data_solver(tmp_path / "run", database, text) as solver:
        parameters = solver.parameters
        solver.iteration = 3
        assert solver.rate == pytest.approx(parameters.base_lr / 2)
        solver.iteration = 0
        # 12 records in batches of 4, two batches an iteration; 3 test batches of 5 cover them.
        assert parameters.max_iter == 6
        assert parameters.test_interval == 2
        assert parameters.snapshot == 3
        assert list(parameters.test_iter) == [3]


def test_epochs_need_a_source_that_knows_its_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knows its number of records"):
        small_solver(tmp_path, "test_iter: 0 test_interval: 2")
