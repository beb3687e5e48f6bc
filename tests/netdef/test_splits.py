"""Split layers against the names that Caffe gave layers and blobs of the recorded nets."""

from __future__ import annotations

import pytest

from cortado.netdef.splits import insert_splits
from cortado.netdef.state import State, effective_layers
from cortado.proto import caffe_pb2
from cortado.proto.files import read_net
from cortado.proto.text import parse
from support.goldens import Case, all_cases


def split(text: str) -> list[caffe_pb2.LayerParameter]:
    net = parse(text, caffe_pb2.NetParameter).message
    return [layer for layer, _ in insert_splits(net.layer)]


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_names_are_those_of_caffe(case: Case) -> None:
    state = State(case.phase, case.meta.get("level") or 0, frozenset(case.meta.get("stages") or ()))
    layers = [spec.message for spec in effective_layers(read_net(case.prototxt), state, [])]
    inserted = [layer for layer, _ in insert_splits(layers)]
    assert [layer.name for layer in inserted] == case.meta["layer_names"]
    assert [layer.type for layer in inserted] == case.meta["layer_types"]
    blobs = dict.fromkeys(top for layer in inserted for top in layer.top)
    assert list(blobs) == case.meta["blob_names"]


def test_reader_after_an_in_place_layer_reads_its_result() -> None:
    layers = split(
        'layer { name: "a" type: "Input" top: "x" }'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "x" }'
        'layer { name: "p" type: "Power" bottom: "x" top: "p" }'
        'layer { name: "q" type: "Power" bottom: "x" top: "q" }'
    )
    assert [layer.name for layer in layers] == ["a", "r", "x_r_0_split", "p", "q"]
    assert [list(layer.bottom) for layer in layers[3:]] == [["x_r_0_split_0"], ["x_r_0_split_1"]]


def test_a_loss_that_is_also_read_moves_its_weight_to_the_first_copy() -> None:
    text = (
        'layer { name: "a" type: "Input" top: "x" }'
        'layer { name: "l" type: "Power" bottom: "x" top: "l" loss_weight: 3 }'
        'layer { name: "p" type: "Power" bottom: "l" top: "p" }'
    )
    layers = split(text)
    assert [layer.name for layer in layers] == ["a", "l", "l_l_0_split", "p"]
    assert not layers[1].loss_weight
    assert list(layers[2].loss_weight) == [3, 0]
    assert list(layers[3].bottom) == ["l_l_0_split_1"]


def test_the_given_layers_are_not_changed() -> None:
    net = caffe_pb2.NetParameter()
    net.layer.add(name="a", top=["x"])
    net.layer.add(name="b", bottom=["x", "x"], top=["y"])
    before = net.SerializeToString()
    indices = [index for _, index in insert_splits(net.layer)]
    assert indices == [0, None, 1]
    assert net.SerializeToString() == before
