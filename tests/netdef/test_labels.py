"""Class labels outside the net's range are refused by the source that delivers them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from cortado.netdef import Net
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError
from cortado.proto.text import parse


def net(folder: Path, labels: list[float], accuracy: str = "", loss: str = "") -> Net:
    with h5py.File(folder / "rows.h5", "w") as file:
        file["data"] = np.zeros((len(labels), 3), np.float32)
        file["label"] = np.array(labels, np.float32)
    (folder / "list.txt").write_text(f"{folder / 'rows.h5'}\n")
    text = f"""
layer {{ name: "rows" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param {{ source: "{folder / "list.txt"}" batch_size: 2 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 4 }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  accuracy_param {{ {accuracy} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  loss_param {{ {loss} }} }}
"""
    return Net(parse(text, caffe_pb2.NetParameter), "TRAIN")


def test_labels_within_the_range_pass(tmp_path: Path) -> None:
    assert net(tmp_path, [0, 3]).next_batch()["label"].tolist() == [0, 3]


@pytest.mark.parametrize("label", [4.0, -1.0, 0.5, float("nan")])
def test_others_are_named_with_file_row_and_range(tmp_path: Path, label: float) -> None:
    with pytest.raises(DataError, match=r"rows\.h5: row 1 .*'label'.*0 to 3 for 4 classes"):
        net(tmp_path, [0, label]).next_batch()


def test_a_value_that_one_layer_ignores_passes(tmp_path: Path) -> None:
    subject = net(tmp_path, [0, 255], accuracy="ignore_label: 255", loss="ignore_label: 255")
    batch = subject.next_batch()
    assert subject(**batch)["loss"].isfinite()
