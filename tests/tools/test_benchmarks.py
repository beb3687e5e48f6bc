"""The twin in plain torch, and a race."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cortado.netdef import Net
from cortado.netdef.blueprint import draw
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError
from cortado.proto.text import parse
from cortado.tools.benchmarks import twin
from cortado.tools.benchmarks.nets import BATCHES, definition
from cortado.tools.benchmarks.race import Result, ratio
from cortado.tools.cli import main

EVERYTHING = """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 16 dim: 16 } shape { dim: 2 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param {
  num_output: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "scale" type: "Scale" bottom: "a" top: "a"
  scale_param { bias_term: true filler { value: 2 } } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "norm" type: "LRN" bottom: "a" top: "norm" lrn_param { local_size: 5 } }
layer { name: "b" type: "Convolution" bottom: "norm" top: "b" convolution_param {
  num_output: 8 kernel_size: 3 pad: 1 group: 2 weight_filler { type: "msra" } } }
layer { name: "sum" type: "Eltwise" bottom: "norm" bottom: "b" top: "sum" }
layer { name: "cat" type: "Concat" bottom: "sum" bottom: "norm" top: "cat" }
layer { name: "max" type: "Pooling" bottom: "cat" top: "max"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "ave" type: "Pooling" bottom: "max" top: "ave"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "fc" type: "InnerProduct" bottom: "ave" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "msra" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss"
  loss_weight: 0.3 }
"""
ODD = """
layer { name: "in" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "odd" type: "Power" bottom: "data" top: "odd" power_param { power: 2 } }
"""


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick", "everything"])
def test_twin_has_the_same_loss_and_gradients(name: str) -> None:
    torch.manual_seed(2)
    everything = parse(EVERYTHING, caffe_pb2.NetParameter).message
    net = Net(everything if name == "everything" else definition(name, 2))
    data, label = torch.randn(net.inputs["data"]), torch.zeros(net.inputs["label"])
    other = twin.build(net)
    _, loss = net.run({"data": data, "label": label})
    loss.backward()
    theirs = other(data, label.long())
    theirs.backward()
    torch.testing.assert_close(theirs, loss, rtol=1e-4, atol=1e-5)
    ours = sorted(float(p.grad.norm()) for p in net.parameters() if p.grad is not None)
    found = sorted(float(p.grad.norm()) for p in other.parameters() if p.grad is not None)
    assert ours == pytest.approx(found, rel=2e-3, abs=1e-5)


def test_unknown_layer_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"layer 'odd'.*Power"):
        twin.build(Net(parse(ODD, caffe_pb2.NetParameter).message))


@pytest.mark.parametrize("name", list(BATCHES))
def test_default_nets_have_only_layers_that_the_twin_knows(name: str) -> None:
    for phase in ("TRAIN", "TEST"):
        plan = draw(definition(name), phase)
        assert all(step.type in twin.known() for step in plan.steps)
        assert plan.blob_shapes["data"][0] == BATCHES[name]


def test_ratio_is_that_of_neighbouring_turns() -> None:
    slow, fast = Result("slow", 0.0, [2.0, 40.0, 6.0]), Result("fast", 0.0, [1.0, 10.0, 2.0])
    assert ratio(slow, fast)[0] == 3.0


def test_race_of_lenet_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    command = ["bench", "lenet", "--batch", "2", "--rounds", "1", "--phase", "train"]
    assert main([*command, "--json", str(path)]) == 0
    (race,) = json.loads(path.read_text())["races"]
    assert list(race["contenders"]) == ["ours", "plain", "tuned"]
    assert all(each["ms"] > 0 for each in race["contenders"].values())
    assert "ours is" in capsys.readouterr().out


def test_race_of_inference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    command = ["bench", "lenet", "--batch", "1", "--rounds", "1", "--phase", "test"]
    command += ["--precision", "BF16", "--against", "plain,torchvision", "--json", str(path)]
    assert main(command) == 0
    (race,) = json.loads(path.read_text())["races"]
    assert race["images"] == 1
    assert list(race["contenders"]) == ["ours", "plain"]
    assert "has no such model" in capsys.readouterr().out


def test_unknown_net_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lenot"]) == 2
    assert "lenet" in capsys.readouterr().err


def pretended_caffe(folder: Path, answer: str) -> Path:
    """A program that writes down how it was called and prints ``answer`` as Caffe logs."""
    binary = folder / "caffe"
    binary.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/calls\n'
        f'while [ "$1" != -model ]; do shift; done; cp "$2" {folder}/seen.prototxt\n'
        f"printf '%s\\n' '{answer}' >&2\n"
    )
    binary.chmod(0o755)
    return binary


def test_a_caffe_binary_races_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = "I0101 caffe.cpp:406] Average Forward-Backward: 12345.5 ms."
    binary = pretended_caffe(tmp_path, answer)
    report = tmp_path / "bench.json"
    command = ["bench", "lenet", "--batch", "2", "--rounds", "2", "--phase", "train"]
    command += ["--against", "", "--caffe", str(binary), "--json", str(report)]
    assert main(command) == 0
    caffe = json.loads(report.read_text())["races"][0]["contenders"]["caffe"]
    assert caffe["times"] == [12345.5, 12345.5]
    assert caffe["ratio"][0] > 1
    assert len((tmp_path / "calls").read_text().splitlines()) == 3  # one to see how long it takes
    seen = parse((tmp_path / "seen.prototxt").read_text(), caffe_pb2.NetParameter).message
    assert [layer.type for layer in seen.layer if not layer.bottom] == ["DummyData"]
    assert "caffe" in capsys.readouterr().out


def test_a_caffe_that_fails_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = pretended_caffe(tmp_path, "F0101 layer_factory.hpp:81] Unknown layer type")
    command = ["bench", "lenet", "--batch", "2", "--rounds", "1", "--phase", "train"]
    assert main([*command, "--against", "", "--caffe", str(binary)]) == 2
    assert "Unknown layer type" in capsys.readouterr().err


def test_caffe_cannot_be_timed_by_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lenet", "--caffe", "caffe", "--clock", "cpu"]) == 2
    assert "--clock cpu" in capsys.readouterr().err
