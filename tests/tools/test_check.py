"""cortado check on databases, and its warnings about solvers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cortado.tools import cli

NET = """
layer { name: "images" type: "Data" top: "data" top: "label"
  data_param { source: "db" batch_size: 4 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt"
test_iter: 1
test_interval: 5
base_lr: 0.1
lr_policy: "fixed"
max_iter: 5
snapshot_prefix: "run"
"""


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Builds ``db`` of 6x5 images with the given labels, and a net and solver for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)

    def build(*labels):
        lines = []
        for index, label in enumerate(labels):
            pixels = np.full((5, 6, 3), index, np.uint8)
            cv2.imwrite(f"{index}.png", pixels)
            lines.append(f"{index}.png {label}\n")
        (tmp_path / "list.txt").write_text("".join(lines))
        assert cli.main(["convert_imageset", "./", "list.txt", "db"]) == 0

    return build


def check(capsys, *tokens):
    capsys.readouterr()
    code = cli.main(["check", *tokens])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_data_that_fits(database, capsys):
    database(0, 1, 2, 0)
    code, out, err = check(capsys, "net.prototxt", "--data")
    assert code == 0
    assert out.count("images: 4 records of 3x5x6 are readable and fit the net") == 2
    assert "warning" not in err


def test_labels_beyond_num_output(database, capsys):
    database(0, 1, 3, 0)
    assert check(capsys, "net.prototxt")[0] == 0
    code, _, err = check(capsys, "net.prototxt", "--data", "--phase=train")
    assert code == 3
    assert "layer 'images': " in err
    assert "00000002_2.png" in err


def test_a_class_without_records_is_a_warning(database, capsys):
    database(0, 1, 1, 0)
    code, _, err = check(capsys, "net.prototxt", "--data")
    assert code == 0
    assert "1 of the net's 3 classes have no record: 2" in err
    assert "net.prototxt:2:" in err


def test_a_mean_of_another_size(database, tmp_path, capsys):
    from cortado.layers.data.mean import write_mean

    database(0, 1, 2, 0)
    write_mean(np.zeros((3, 4, 4), np.float32), "mean.binaryproto")
    transform = 'transform_param { mean_file: "mean.binaryproto" } data_param'
    (tmp_path / "net.prototxt").write_text(NET.replace("data_param", transform))
    code, _, err = check(capsys, "net.prototxt", "--data")
    assert code == 3
    assert "mean.binaryproto is 3x4x4, the image is 3x5x6" in err


def test_sets_that_batches_do_not_cover(database, capsys):
    database(0, 1, 2, 0, 1, 2, 0)
    code, _, err = check(capsys, "solver.prototxt")
    assert code == 0
    assert "7 records are no multiple of the batch of 4" in err
    assert "solver.prototxt:3:" in err
    assert "test_iter 1 x batch 4 = 4 images, but layer 'images' has 7: not all of them" in err
    assert "test_iter: 2 covers the set" in err
