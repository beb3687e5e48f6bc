"""Cached features of rows of HDF5 files, and the sources whose records cannot be kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from cortado.proto.errors import ConfigError, DataError
from support.feature_runs import RECORDS, Keys, solver_for, trained
from support.runs import everything


def hdf5_source(folder: Path, fields: str = "", sizes: Sequence[int] = (5, 1, 7)) -> str:
    """A layer of RECORDS rows in several files."""
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.h5" for number in range(len(sizes))]
    for path, rows in zip(paths, sizes, strict=True):
        with h5py.File(path, "w") as file:
            file["data"] = random.standard_normal((rows, 3, 8, 8)).astype(np.float32)
            file["label"] = random.integers(0, 3, rows)
    (folder / "files.txt").write_text("".join(f"{path}\n" for path in paths))
    return f"""layer {{ name: "rows" type: "HDF5Data" top: "data" top: "label"
      hdf5_data_param {{ source: "{folder}/files.txt" batch_size: 4 {fields} }} }}"""


@pytest.mark.parametrize("order", ["", "shuffle: true"])
def test_rows_of_hdf5_files(order: str, tmp_path: Path) -> None:
    data = hdf5_source(tmp_path, order)
    text = "momentum: 0.9 test_iter: 4 test_interval: 4 max_iter: 9"
    keys, weights, tests = trained(solver_for(tmp_path / "whole", data, text, cached=False))
    cached = solver_for(tmp_path / "cached", data, text)
    cached_keys, cached_weights, cached_tests = trained(cached)
    assert cached_keys == keys
    assert len({key for batch in keys for key in batch}) == RECORDS
    assert [step.name for step in cached.net.running] == ["drop", "ip", "loss"]
    assert [step.name for step in cached.test_nets[0].running] == ["ip", "accuracy", "loss"]
    assert all(map(torch.allclose, cached_weights, weights))
    assert cached_tests == pytest.approx(tests, rel=1e-5)


def test_a_run_on_hdf5_files_resumes_with_features_and_without(tmp_path: Path) -> None:
    data = hdf5_source(tmp_path, "shuffle: true")
    keys, weights, _ = trained(solver_for(tmp_path / "whole", data, cached=False))
    with solver_for(tmp_path / "cut", data) as first:
        first.step(3)
        first.snapshot()
    for cached in (True, False):
        second = solver_for(tmp_path / "cut", data, cached=cached)
        seen = Keys()
        second.hooks.append(seen)
        with second:
            second.solve(tmp_path / "cut" / "run_iter_3.solverstate")
            assert all(map(torch.allclose, everything(second), weights))
        assert seen.seen == keys[3:]


def test_features_of_hdf5_files_are_made_anew_where_a_file_changes(tmp_path: Path) -> None:
    def count(data: str) -> int:
        with solver_for(tmp_path / "run", data) as solver:
            solver.step(1)
        return len(list((tmp_path / "features").iterdir()))

    assert count(hdf5_source(tmp_path)) == 1
    assert count(data := hdf5_source(tmp_path, "shuffle: true")) == 2  # written again
    assert count(data) == 2
    assert count(hdf5_source(tmp_path, sizes=(6, 7))) == 3


def test_wrong_labels_of_hdf5_files_are_named_while_features_are_made(tmp_path: Path) -> None:
    data = hdf5_source(tmp_path)
    with h5py.File(tmp_path / "2.h5", "a") as file:
        file["label"][3] = 8
    with (
        solver_for(tmp_path / "run", data) as solver,
        pytest.raises(DataError, match=r"2\.h5: row 3 of dataset 'label' holds label 8"),
    ):
        solver.step(1)
    assert not list((tmp_path / "features").iterdir())


def test_sources_whose_records_cannot_be_kept_say_why(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "w.png"), np.zeros((20, 20, 3), np.uint8))
    boxes = "1 0.9 0 0 9 12\n2 0.1 0 2 8 10\n"
    (tmp_path / "w.txt").write_text(f"# 0\n{tmp_path}/w.png\n3\n20\n20\n2\n{boxes}")
    windows = f"""layer {{ name: "windows" type: "WindowData" top: "data" top: "label"
      transform_param {{ crop_size: 8 }}
      window_data_param {{ source: "{tmp_path}/w.txt" batch_size: 4 fg_fraction: 0.5 }} }}"""
    dummy = """layer { name: "made_up" type: "DummyData" top: "data" top: "label"
      dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }"""
    reasons = {
        windows: r"layer 'windows' \(WindowData\): it draws windows at random, anew for every",
        dummy: r"layer 'made_up' \(DummyData\): its records have no numbers",
    }
    for data, reason in reasons.items():
        with solver_for(tmp_path / "run", data) as solver, pytest.raises(ConfigError, match=reason):
            solver.step(1)
