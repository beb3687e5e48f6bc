"""Parameters and multiply-accumulate operations, against counts that are not ours.

torch's counter sees two operations in each multiplication with its addition; it knows convolutions
and products of matrices, which is what the zoo counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from cortado.model_zoo import index
from support.zoo_plans import counted

MODELS = index.models()
IN_TORCHVISION = [name for name, model in MODELS.items() if model.torchvision]
#: What their authors, or others, have published about nets that torchvision does not have.
PUBLISHED_PARAMETERS = {
    "lenet": 431e3,  # Han et al.: Learning both Weights and Connections, 2015
    "bvlc_alexnet": 61e6,  # the same
    "bvlc_reference_caffenet": 61e6,
    "bvlc_googlenet": 7.0e6,  # Sze et al.: Efficient Processing of Deep Neural Networks, 2017
    "overfeat_fast": 145e6,  # Sermanet et al., 2013
    "resnet20_cifar": 0.27e6,  # He et al., 2015, table 6
    "resnet56_cifar": 0.85e6,
    "resnet50_caffe": 25.5e6,  # Sze et al.
}
PUBLISHED_MACS = {
    "lenet": 4.586e6 / 2,  # Han et al., who count multiplications and additions
    "bvlc_alexnet": 724e6,  # Sze et al.
    "bvlc_reference_caffenet": 724e6,
    "overfeat_fast": 2810e6,  # Sermanet et al.: connections
    "resnet50_caffe": 3.8e9,  # He et al., 2015, table 1
    "resnet101_caffe": 7.6e9,
    "resnet152_caffe": 11.3e9,
}


@pytest.fixture(autouse=True)
def slow_attention() -> Iterator[None]:
    """The fast path of torch's encoder is one operation that the counter does not know."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("name", MODELS)
def test_operations_that_our_layers_run(name: str) -> None:
    assert counted(name).operations == 2 * MODELS[name].macs


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_counts_of_torchvisions_modules(name: str) -> None:
    model = MODELS[name]
    options = {}
    if name in ("googlenet", "inception_v3"):  # in use it has no heads that only help to learn
        options = {"aux_logits": False, "init_weights": False}
    with torch.device("meta"):
        net = torchvision.models.get_model(model.torchvision, weights=None, **options).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, *model.input))
    assert counter.get_total_flops() == 2 * model.macs
    assert sum(parameter.numel() for parameter in net.parameters()) == model.parameters


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_torchvisions_published_figures(name: str) -> None:
    model = MODELS[name]
    facts = torchvision.models.get_model_weights(model.torchvision).DEFAULT.meta
    assert round(model.macs / 1e9, 3) == facts["_ops"]
    head = 3_326_696 if name == "inception_v3" else 0  # it is counted there
    assert model.parameters + head == facts["num_params"]


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_published_parameters(name: str) -> None:
    assert MODELS[name].parameters == pytest.approx(PUBLISHED_PARAMETERS[name], rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_MACS)
def test_published_operations(name: str) -> None:
    assert MODELS[name].macs == pytest.approx(PUBLISHED_MACS[name], rel=0.02)
