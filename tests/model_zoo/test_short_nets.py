"""The zoo's nets: short, and equal to the same nets written out layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

import cortado
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.files import read_prototxt
from cortado.proto.text import parse, to_text
from support.zoo_nets import NETS

ZOO = Path(cortado.__file__).parent / "model_zoo"
MOST_LINES = {
    "bvlc_alexnet": 30,
    "vgg19": 25,
    "bvlc_googlenet": 60,
    "resnet50_caffe": 50,
    "resnet152_caffe": 50,
    "densenet121_caffe": 50,
    "mobilenet_v2_caffe": 50,
}


def path_of(name: str) -> Path:
    return ZOO / name / "net.prototxt"


@pytest.mark.parametrize("name", MOST_LINES)
def test_expands_to_the_net_written_out(name: str) -> None:
    expanded = read_prototxt(path_of(name), NetParameter).message
    written_out = NETS[name]()
    for ours, theirs in zip(expanded.layer, written_out.layer, strict=False):
        assert ours == theirs
    assert expanded == written_out


@pytest.mark.parametrize("name", MOST_LINES)
def test_is_short(name: str) -> None:
    lines = path_of(name).read_text().splitlines()
    assert len(lines) <= MOST_LINES[name]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", MOST_LINES)
def test_expanded_text_is_plain_and_stays_as_it_is(name: str) -> None:
    expanded = read_prototxt(path_of(name), NetParameter).message
    text = to_text(expanded)
    assert "$" not in text
    assert text_format.Parse(text, NetParameter()) == expanded
    again = parse(text, NetParameter).message
    assert again == expanded
    assert to_text(again) == text


def test_resnets_differ_in_one_line() -> None:
    short = path_of("resnet50_caffe").read_text().splitlines()
    deep = path_of("resnet152_caffe").read_text().splitlines()
    assert len(short) == len(deep)
    assert sum(a != b for a, b in zip(short, deep, strict=True)) == 1
