"""What a net's log says about it, held against Caffe's own words for LeNet."""

from __future__ import annotations

import pytest

from cortado.netdef import Net
from cortado.netdef.description import describe
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.text import parse
from cortado.tools.output.log import net_lines

DATA = """
layer { name: "mnist" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 64 dim: 1 dim: 28 dim: 28 } shape { dim: 64 } } }
"""
NET = (
    DATA
    + """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "ip2" type: "InnerProduct" bottom: "conv1" top: "ip2"
  inner_product_param { num_output: 10 } }
layer { name: "relu" type: "ReLU" bottom: "ip2" top: "ip2" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
)


def build(text: str) -> Net:
    return Net(parse(text, NetParameter), "TEST")


def lines(text: str) -> list[str]:
    return [line for _, line in net_lines(describe(build(text)))]


def test_the_lines_of_a_layer_are_caffes():
    found = lines(NET)
    start = found.index("Creating Layer conv1")
    assert found[start : start + 6] == [
        "Creating Layer conv1",
        "conv1 <- data",
        "conv1 -> conv1",
        "Setting up conv1",
        "Top shape: 64 20 24 24 (737280)",
        # 64 * (784 + 1) values of data, two copies of the label, and the convolution's
        f"Memory required for data: {4 * (64 * 785 + 2 * 64 + 737280)}",
    ]


def test_splits_in_place_layers_and_losses():
    found = lines(NET)
    assert "relu -> ip2 (in-place)" in found
    start = found.index("Creating Layer ip2_relu_0_split")
    assert found[start + 1 : start + 7] == [
        "ip2_relu_0_split <- ip2",
        "ip2_relu_0_split -> ip2_relu_0_split_0",
        "ip2_relu_0_split -> ip2_relu_0_split_1",
        "Setting up ip2_relu_0_split",
        "Top shape: 64 10 (640)",
        "Top shape: 64 10 (640)",
    ]
    assert "accuracy <- label_mnist_1_split_0" in found
    start = found.index("Setting up loss")
    assert found[start + 1 : start + 3] == ["Top shape: (1)", "    with loss weight 1"]


def test_which_layers_need_gradients_and_what_comes_out():
    found = lines(NET)
    end = found.index("loss needs backward computation.")
    assert found[end:] == [
        "loss needs backward computation.",
        "accuracy does not need backward computation.",
        "ip2_relu_0_split needs backward computation.",
        "relu needs backward computation.",
        "ip2 needs backward computation.",
        "conv1 needs backward computation.",
        "label_mnist_1_split does not need backward computation.",
        "mnist does not need backward computation.",
        "This network produces output accuracy",
        "This network produces output loss",
        "Network initialization done.",
    ]


def test_shared_parameters_name_their_owner():
    shared = """
    layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" }
      inner_product_param { num_output: 784 bias_term: false } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
      inner_product_param { num_output: 784 bias_term: false } }
    """
    found = lines(DATA + shared)
    assert found.count("Sharing parameters 'w' owned by layer 'a', param index 0") == 1


def test_a_stated_loss_weight_moves_to_the_split():
    weighted = """
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" loss_weight: 0.5
      inner_product_param { num_output: 2 } }
    layer { name: "relu" type: "ReLU" bottom: "ip" top: "relu" }
    """
    layers = {layer.name: layer for layer in describe(build(DATA + weighted)).layers}
    assert layers["ip"].loss_weights == (0.0,)
    assert layers["ip_ip_0_split"].loss_weights == pytest.approx((0.5, 0.0))
