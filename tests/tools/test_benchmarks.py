"""The twin in plain torch, and a race."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cortado.netdef import Net
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError
from cortado.proto.text import parse
from cortado.tools.benchmarks import twin
from cortado.tools.benchmarks.nets import NETS, Writer
from cortado.tools.benchmarks.race import Result, ratio
from cortado.tools.cli import main


def everything() -> str:
    """A small net with every kind of layer of the named nets."""
    net = Writer(2, 3, 16)
    net.conv("a", 8, 3, "pad: 1 group: 1 bias_term: false")
    net.layer("BatchNorm", "bn", top="a")
    net.layer("Scale", "scale", "scale_param { bias_term: true filler { value: 2 } }", top="a")
    net.relu()
    left = net.norm("norm")
    right = net.conv("b", 8, 3, "pad: 1 group: 2")
    net.layer("Eltwise", "sum", "", left, right)
    net.layer("Concat", "cat", "", "sum", "norm")
    net.pool("max", "MAX", 3, 2)
    net.pool("ave", "AVE", 3, 2, "pad: 1")
    net.ip("fc", 5)
    net.loss("loss", 0.3)
    return net.text


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick", "everything"])
def test_twin_has_the_same_loss_and_gradients(name: str) -> None:
    text = everything() if name == "everything" else NETS[name].text(2)
    torch.manual_seed(2)
    net = Net(parse(text, caffe_pb2.NetParameter).message)
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
    net = Writer(1, 1, 8)
    net.layer("Power", "odd", "power_param { power: 2 }")
    with pytest.raises(ConfigError, match=r"layer 'odd'.*Power"):
        twin.build(Net(parse(net.text, caffe_pb2.NetParameter).message))


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


def test_unknown_net_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lenot"]) == 2
    assert "lenet" in capsys.readouterr().err
