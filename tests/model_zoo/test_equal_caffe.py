"""BVLC's models compute what the nets do whose values Caffe recorded (netdef/test_whole_nets)."""

from __future__ import annotations

import pytest
import torch

from cortado.model_zoo import zoo
from cortado.netdef import Net
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.text import parse
from cortado.proto.weights import Weights
from support.public_nets import NETS

MODELS = (
    "lenet", "cifar10_quick", "cifar10_full", "bvlc_alexnet", "bvlc_reference_caffenet",
    "bvlc_googlenet",
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_same_as_the_recorded_net(name: str) -> None:
    ours = zoo.load(name)
    recorded = Net(parse(NETS[name](), NetParameter, name).message, "TEST")
    report = recorded.load(Weights(name, ours.layer_blobs()))
    assert not report.untouched
    assert not report.ignored
    images = torch.randn(recorded.inputs["data"])
    with torch.no_grad():
        found, wanted = ours(data=images)["prob"], recorded(data=images)["prob"]
    assert torch.equal(found, wanted)
