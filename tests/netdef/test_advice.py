"""Each warning about a net is given where it should be, and at the right line."""

from __future__ import annotations

import pytest

from cortado.netdef import blueprint
from cortado.netdef.advice import advise
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.text import parse

DATA = """
layer { name: "in" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } shape { dim: 4 } } }
"""
IP = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'


def warnings(text: str, phase: str = "TRAIN") -> list[str]:
    return [str(fault) for fault in advise(blueprint.draw(parse(text, NetParameter), phase))]


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_usual_net_earns_no_warning(phase):
    drop = 'layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }\n'
    score = 'layer { name: "a" type: "Accuracy" bottom: "ip" bottom: "label" top: "a" }\n'
    assert warnings(DATA + IP + drop + score + LOSS, phase) == []


@pytest.mark.parametrize(
    ("text", "phase", "message"),
    [
        (
            DATA
            + IP
            + 'layer { name: "cut" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "l"\n'
            + "  propagate_down: false propagate_down: false }",
            "TRAIN",
            "layer 'cut': a loss without gradient",
        ),
        (
            DATA + IP.replace("inner", "param { lr_mult: 0 } param { lr_mult: 0 } inner") + LOSS,
            "TRAIN",
            "lr_mult is 0 for every parameter",
        ),
        (
            DATA
            + IP
            + 'layer { name: "d" type: "Dropout" bottom: "ip" top: "ip" include { phase: TEST } }'
            + LOSS,
            "TEST",
            "layer 'd': Dropout belongs to TEST alone",
        ),
        (
            DATA
            + IP
            + 'layer { name: "d" type: "Dropout" bottom: "ip" top: "ip" phase: TRAIN }'
            + LOSS,
            "TEST",
            "layer 'd': Dropout drops in the TEST net",
        ),
        (
            DATA
            + IP
            + 'layer { name: "s" type: "Softmax" bottom: "ip" top: "p" }\n'
            + LOSS.replace('"ip"', '"p"'),
            "TRAIN",
            "Softmax is applied twice",
        ),
        (
            DATA.replace("dim: 4", "dim: 1")
            + 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "data2" }\n'
            + IP.replace('"data"', '"data2"')
            + LOSS,
            "TRAIN",
            "layer 'bn': BatchNorm of batches of 1",
        ),
        (
            DATA + IP + LOSS + IP.replace('"ip"', '"extra"'),
            "TRAIN",
            "layer 'extra': nobody reads its top 'extra'",
        ),
    ],
    ids=["gradient", "rates", "dropout", "phase", "twice", "statistics", "unused"],
)
def test_what_is_probably_not_meant(text, phase, message):
    found = warnings(text, phase)
    assert any(message in warning for warning in found), found
    assert all("<text>:" in warning for warning in found)
