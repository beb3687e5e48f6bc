"""cortado convert of a .caffemodel whose data are elsewhere by now."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.layers.data.writers import create_database
from cortado.netdef import Net
from cortado.netdef.state_dicts import read_state_dict
from cortado.netdef.weights import recorded
from cortado.proto.caffe_pb2 import Datum, NetParameter
from cortado.proto.recognise import SAFETENSORS
from cortado.proto.text import parse
from cortado.proto.weights import read_net_message, read_weights, write_weights
from cortado.tools import cli

NET = """
name: "n"
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "db" batch_size: 4 backend: LMDB } %s
}
layer { name: "halves" type: "Slice" bottom: "label" top: "one" top: "two" slice_param { axis: 0 } }
layer { name: "drop" type: "Silence" bottom: "one" bottom: "two" }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "side" type: "InnerProduct" bottom: "conv" top: "side"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "side_loss" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "side_loss"
  loss_weight: 0.3 }
layer { name: "score" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    """A net whose weights are in ``w.caffemodel``; the database that it was made with is gone."""
    monkeypatch.chdir(tmp_path)
    datum = Datum(channels=3, height=8, width=6, data=bytes(3 * 8 * 6))
    with create_database("db") as writer:
        for number in range(4):
            writer.put(b"%08d" % number, datum.SerializeToString())
    net = Net(parse(NET % "transform_param { scale: 0.5 }", NetParameter))
    net.save("w.caffemodel")
    net.close()
    shutil.rmtree("db")
    return net


@pytest.mark.parametrize("target", ["b.caffemodel", "b.h5", "b.safetensors", "b.pth"])
def test_no_data_are_needed(trained: Net, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", "w.caffemodel", target, "--verify"]) == 0
    out = capsys.readouterr().out
    assert "copied (3): conv, side, score" in out
    assert "all layers agree" in out
    assert recorded(target) == recorded("w.caffemodel")


def test_every_weight_is_there(trained: Net) -> None:
    assert cli.main(["convert", "w.caffemodel", "b.safetensors"]) == 0
    tensors, _ = read_state_dict("b.safetensors", SAFETENSORS)
    assert tensors.keys() == {param.name for param in trained.params}
    for param in trained.params:
        assert torch.equal(tensors[param.name], param.tensor)


def test_a_caffemodel_keeps_the_net_that_was_trained(trained: Net) -> None:
    assert cli.main(["convert", "w.caffemodel", "b.caffemodel"]) == 0
    kept, before = read_net_message("b.caffemodel"), read_net_message("w.caffemodel")
    assert [layer.name for layer in kept.layer] == [layer.name for layer in before.layer]
    assert kept.layer[0].data_param.source == "db"


@pytest.fixture
def without_record(trained: Net) -> None:
    """What Caffe writes: a file that does not say of which size its images were."""
    message = read_net_message("w.caffemodel")
    del message.preprocessing[:]
    write_weights("w.caffemodel", message, list(read_weights("w.caffemodel")))


@pytest.mark.usefixtures("without_record")
def test_a_shape_that_nothing_tells_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", "w.caffemodel", "b.h5"]) == 2
    error = capsys.readouterr().err
    assert "layer 'data': the shape of 'data' is not known; give it as --shape data=1,3" in error
    assert not Path("b.h5").exists()
    words = ["convert", "w.caffemodel", "b.h5", "--shape", "data=1,3,8,6", "--verify"]
    assert cli.main(words) == 0
    stored = {layer.name: layer.blobs for layer in read_weights("b.h5")}
    expected = {layer.name: layer.blobs for layer in read_weights("w.caffemodel")}
    for name in ("conv", "side", "score"):
        for one, other in zip(stored[name], expected[name], strict=True):
            assert one is not None
            assert other is not None
            assert np.array_equal(one.data, other.data)


@pytest.mark.usefixtures("without_record")
def test_a_crop_tells_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    crop = "transform_param { crop_size: 5 mean_value: 1 mean_value: 2 mean_value: 3 }"
    message = parse(NET % crop, NetParameter).message
    message.layer[0].type = "DummyData"
    message.layer[0].ClearField("transform_param")
    for dims in ((4, 3, 5, 5), (4,)):
        message.layer[0].dummy_data_param.shape.add(dim=dims)
    Net(message).save("c.caffemodel")
    cropped = parse(NET % crop, NetParameter).message
    write_weights("c.caffemodel", cropped, list(read_weights("c.caffemodel")))
    assert cli.main(["convert", "c.caffemodel", "b.safetensors", "--verify"]) == 0
    assert "copied (3)" in capsys.readouterr().out


def test_a_shape_without_need_is_refused(trained: Net, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "w.caffemodel", "b.h5", "--model", "n.prototxt", "--shape", "data=1,3,8,6"]
    assert cli.main(words) == 2
    assert "--shape is for the net that a .caffemodel holds" in capsys.readouterr().err
