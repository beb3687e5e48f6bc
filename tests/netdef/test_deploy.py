"""Nets for deployment: what goes, what comes in its place, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

import cortado
from cortado.netdef.deploy import deploy
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.errors import ConfigError
from cortado.proto.files import read_net
from cortado.proto.text import parse

ZOO = Path(cortado.__file__).parent / "model_zoo"
DATA = """layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { mirror: true scale: 0.5 crop_size: 8 mean_value: 1 mean_value: 2 mean_value: 3 }
  data_param { source: "nowhere" batch_size: 2 } }
"""
FC = 'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" loss_weight: 0 }\n'


def deployed(text: str, **shapes: list[int]) -> NetParameter:
    return deploy(parse(text, NetParameter), shapes)


def wires(net: NetParameter) -> list[str]:
    return [f"{each.type} {' '.join(each.bottom)} -> {' '.join(each.top)}" for each in net.layer]


def test_data_becomes_input_with_its_preprocessing() -> None:
    ends = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "l" }'
    net = deployed(DATA + FC % ("fc", "data", "fc") + ends)
    assert wires(net) == ["Input  -> data", "InnerProduct data -> fc", "Softmax fc -> prob"]
    data = net.layer[0]
    assert list(data.input_param.shape[0].dim) == [1, 3, 8, 8]
    assert list(data.transform_param.mean_value) == [1, 2, 3]
    assert data.transform_param.scale == 0.5
    assert not data.transform_param.HasField("mirror")
    assert not net.layer[1].loss_weight


def test_rules_choose_phase_test_and_stage_deploy() -> None:
    text = DATA + "".join(
        FC.replace("loss_weight: 0", rule) % (name, "data", name)
        for name, rule in (
            ("train", "include { phase: TRAIN }"),
            ("test", "include { phase: TEST }"),
            ("used", 'include { stage: "deploy" }'),
            ("unused", 'exclude { stage: "deploy" }'),
        )
    )
    net = deployed(text)
    assert [layer.name for layer in net.layer] == ["data", "test", "used"]
    assert not net.layer[2].include


def test_lesser_losses_go_with_their_heads_and_labels_with_what_prepares_them() -> None:
    text = (
        DATA
        + 'layer { name: "s" type: "Slice" bottom: "label" top: "a" top: "b" }'
        + FC % ("body", "data", "body")
        + FC % ("side", "body", "side")
        + FC % ("head", "body", "head")
        + 'layer { name: "x" type: "SoftmaxWithLoss" bottom: "side" bottom: "a" loss_weight: 0.3 }'
        + 'layer { name: "y" type: "SigmoidCrossEntropyLoss" bottom: "head" bottom: "b" }'
        + 'layer { name: "z" type: "Accuracy" bottom: "side" bottom: "a" top: "z" }'
    )
    net = deployed(text)
    assert [layer.name for layer in net.layer] == ["data", "body", "head", "prob"]
    assert net.layer[3].type == "Sigmoid"


def test_losses_without_activation_leave_their_bottom() -> None:
    text = DATA + FC % ("fc", "data", "fc")
    net = deployed(text + 'layer { name: "e" type: "EuclideanLoss" bottom: "fc" bottom: "label" }')
    assert [layer.name for layer in net.layer] == ["data", "fc"]


def test_shapes_are_given_or_known() -> None:
    text = DATA.replace("crop_size: 8", "") + FC % ("fc", "data", "fc")
    with pytest.raises(ConfigError, match="give it as --shape data=1,3,224,224"):
        deployed(text)
    assert list(deployed(text, data=[4, 2]).layer[0].input_param.shape[0].dim) == [4, 2]
    dummy = """layer { name: "d" type: "DummyData" top: "d"
      dummy_data_param { shape { dim: 9 dim: 5 } } }\n"""
    net = deployed(dummy + FC % ("fc", "d", "fc"))
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 5]


def test_nothing_left_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is left"):
        deployed(DATA)


@pytest.mark.parametrize("name", ["bvlc_googlenet", "resnet50_caffe", "mobilenet_v2_caffe"])
def test_zoo_nets_keep_their_layers(name: str) -> None:
    document = read_net(ZOO / name / "net.prototxt")
    net = deploy(document)
    training = {layer.name for layer in document.message.layer}
    assert {layer.name for layer in net.layer} - training == {"prob"}
    assert net.layer[0].type == "Input"
    assert not {layer.type for layer in net.layer} & {"Data", "Accuracy", "SoftmaxWithLoss"}
    assert not any(layer.name.startswith(("loss1", "loss2")) for layer in net.layer)


def test_an_input_of_the_stage_gets_the_preprocessing_of_its_data_layer() -> None:
    text = (
        DATA.replace("data_param", 'include { not_stage: "deploy" } data_param')
        + """
    layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
      input_param { shape { dim: [5, 3, 9, 9] } } }
    layer { name: "r" type: "ReLU" bottom: "data" top: "r" }"""
    )
    net = deployed(text)
    assert wires(net) == ["Input  -> data", "ReLU data -> r"]
    assert list(net.layer[0].input_param.shape[0].dim) == [5, 3, 9, 9]
    assert net.layer[0].transform_param.scale == 0.5


def test_own_modules_and_quirks_stay() -> None:
    layers = DATA + FC % ("fc", "data", "fc")
    net = deployed('import: "my_layers" caffe_quirks: true ' + layers)
    assert list(getattr(net, "import")) == ["my_layers"]
    assert net.caffe_quirks
    assert not deployed(layers).HasField("caffe_quirks")
