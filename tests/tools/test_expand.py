"""``cortado expand`` and ``cortado deploy``."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

import cortado
from cortado.proto.caffe_pb2 import NetParameter, SolverParameter
from cortado.tools.cli import main

NET = str(Path(cortado.__file__).parent / "model_zoo" / "vgg19" / "net.prototxt")


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_prints_plain_prototxt_byte_for_byte_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = output(capsys, "expand", NET)
    net = text_format.Parse(text, NetParameter())
    assert {"fc8", "accuracy_top5", "loss"} <= {layer.name for layer in net.layer}
    assert output(capsys, "expand", NET) == text
    plain = tmp_path / "plain.prototxt"
    plain.write_text(text)
    assert output(capsys, "expand", str(plain)) == text


def test_solvers_and_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text('with { gpus: 1 } net: "n.prototxt" base_lr: ${0.1 * gpus} lr_policy: "fixed"')
    text = output(capsys, "expand", str(path), "--set", "gpus=4")
    assert text_format.Parse(text, SolverParameter()).base_lr == pytest.approx(0.4)
    assert main(["expand", str(path), "--set", "gpu=4"]) == 2
    assert "has no variable 'gpu'; did you mean 'gpus'?" in capsys.readouterr().err
    assert main(["expand", str(path), "--set", "gpus"]) == 2
    assert "--set gpus: must be name=value" in capsys.readouterr().err


def test_tree_shows_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "expand", "--tree", NET).splitlines()
    assert lines[0].startswith("imagenet_rgb crop: 224")
    assert lines[1] == "  data (Data)"
    assert any(line.strip() == "conv1_2 (Convolution)" for line in lines)


def test_deploy_prints_a_net_for_use(capsys: pytest.CaptureFixture[str]) -> None:
    net = text_format.Parse(output(capsys, "deploy", NET), NetParameter())
    assert (net.layer[0].type, net.layer[-1].type) == ("Input", "Softmax")
    again = output(capsys, "deploy", NET, "--shape", "data=2,3,64,64")
    shape = text_format.Parse(again, NetParameter()).layer[0].input_param.shape[0]
    assert list(shape.dim) == [2, 3, 64, 64]
    assert main(["deploy", NET, "--shape", "data=2,x"]) == 2
    assert "must be a blob and its sizes" in capsys.readouterr().err


SMALL = """with { width: 8 }
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: [2, 3] } shape { dim: 2 } } }
block { name: "fc" bottom: "x" with { i: required }
  layer { name: "ip$i" type: "InnerProduct" bottom: "x" top: "ip$i"
    inner_product_param { num_output: $width } } }
repeat { with { i: [1, 2] } layer { type: "fc" with { i: $i } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def test_whatever_takes_a_prototxt_takes_the_short_form(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text(SMALL)
    solver.write_text(
        f'with {{ turns: 9 }} net: "{net}" base_lr: ${{0.01 * turns}} lr_policy: "fixed" '
        f'max_iter: $turns snapshot: 1 snapshot_prefix: "{tmp_path}/s" solver_mode: CPU'
    )
    assert "2x5" in output(capsys, "check", str(net), "--set", "width=5")
    assert "2x6" in output(capsys, "check", str(solver), "--set", "width=6", "--set", "turns=1")
    assert main(["check", str(solver), "--set", "wide=6"]) == 2
    assert "has no variable 'wide'" in capsys.readouterr().err
    assert main(["time", "--model", str(net), "--iterations", "1", "--set", "width=5"]) == 0
    train = ["train", "--solver", str(solver), "--set", "turns=2", "--set", "width=4"]
    assert main([*train, "--set", "base_lr=0.5"]) == 0
    assert (tmp_path / "s_iter_2.caffemodel").exists()
    assert not (tmp_path / "s_iter_3.caffemodel").exists()
    drawing = tmp_path / "net.dot"
    assert main(["draw_net", str(net), str(drawing), "--depth", "0"]) == 0
    assert "fc i: 2" in drawing.read_text()
