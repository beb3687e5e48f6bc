"""How images are prepared travels with weights, through formats, conversions and nets for use."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cortado.netdef import Net
from cortado.netdef.state_dicts import write_state_dict
from cortado.netdef.weights import recorded
from cortado.proto.caffe_pb2 import NetParameter, Preprocessing
from cortado.proto.errors import DataError, SnapshotError
from cortado.proto.text import parse
from cortado.tools import cli

NET = """
layer { name: "data" type: "Input" top: "data" %s
  input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""
FORMATS = ["w.caffemodel", "w.caffemodel.h5", "w.safetensors", "w.pth"]


def net(note: str = "") -> Net:
    return Net(parse(NET % note, NetParameter), "TEST")


def record() -> Preprocessing:
    found = Preprocessing(
        blob="data", channels=3, height=4, width=4, channel_order="RGB", crop_size=4,
        resize_side=6, scale_value=[0.1, 0.2, 0.3],
    )  # fmt: skip
    found.mean_image.shape.dim.extend([3, 6, 6])
    found.mean_image.data.extend([0.1 * value for value in range(108)])
    return found


def with_record() -> Net:
    found = net()
    found.recorded["data"] = record()
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_carries_it(tmp_path: Path, name: str) -> None:
    with_record().save(tmp_path / name)
    assert recorded(tmp_path / name) == [record()]
    other = net()
    other.load(tmp_path / name)
    assert other.preprocessing == {"data": record()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_net_for_use_does_not_forget_it(tmp_path: Path, name: str) -> None:
    with_record().save(tmp_path / name)
    between = net("transform_param { scale: 7 }")  # what the weights say counts for more
    between.load(tmp_path / name)
    for target in FORMATS:
        between.save(tmp_path / f"again_{target}")
        assert recorded(tmp_path / f"again_{target}") == [record()]


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_say_nothing_have_none(tmp_path: Path, name: str) -> None:
    net().save(tmp_path / name)
    assert recorded(tmp_path / name) == []
    assert net().preprocessing == {}


def test_convert_does_not_lose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET % "")
    with_record().save("w0.caffemodel")
    chain = ["w0.caffemodel", "w1.h5", "w2.safetensors", "w3.pth", "w4.caffemodel"]
    for source, target in itertools.pairwise(chain):
        assert cli.main(["convert", source, target, "--model=net.prototxt"]) == 0
        assert recorded(target) == [record()], target


def test_convert_gives_the_zoos_own(tmp_path: Path) -> None:
    target = tmp_path / "digits.caffemodel"
    assert cli.main(["convert", "zoo:lenet_digits", str(target)]) == 0
    (found,) = recorded(target)
    assert (found.channel_order, found.crop_size, found.height) == ("GRAY", 8, 8)
    assert found.scale == pytest.approx(1 / 255)


def test_torch_takes_a_state_dict_that_carries_it(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    write_state_dict(tmp_path / "w.pth", module.state_dict(), known=[record()])
    read = torch.load(tmp_path / "w.pth", weights_only=True)
    nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).load_state_dict(read)
    assert list(read) == list(module.state_dict())


def test_the_records_text_in_safetensors_can_be_read_by_others(tmp_path: Path) -> None:
    from safetensors import safe_open

    with_record().save(tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["cortado.preprocessing"])[0]["channel_order"] == "RGB"
    assert metadata["format"] == "pt"


def test_damaged_metadata_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file({"score.weight": torch.ones(2, 48)}, path, {"cortado.preprocessing": "[{"})
    with pytest.raises(SnapshotError, match=r"w\.safetensors: its cortado\.preprocessing"):
        net().load(path)


def test_an_input_layer_may_say_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = net("transform_param { crop_size: 4 mean_value: 9 scale: 0.5 }").preprocessing["data"]
    assert (found.crop_size, list(found.mean_value), found.scale) == (4, [9], 0.5)
    assert (found.channels, found.height, found.channel_order) == (3, 4, "BGR")
    missing = net('transform_param { mean_file: "nowhere.binaryproto" }')
    with pytest.raises(DataError, match=r"nowhere\.binaryproto"):
        _ = missing.preprocessing
    missing.save(tmp_path / "w.caffemodel")  # the weights are worth more than the note
    assert "how images are prepared is not stored: nowhere.binaryproto" in caplog.text
    assert recorded(tmp_path / "w.caffemodel") == []
