"""Layers that draw random numbers, by their statistics and their gradients."""

import json

import pytest
import torch

from cortado.layers.dropout import Dropout
from cortado.layers.pooling import STOCHASTIC, Pooling
from support.goldens import CASES

DROPOUT = json.loads((CASES / "Dropout" / "train_statistics.json").read_text())


@pytest.mark.parametrize("record", DROPOUT, ids=lambda record: str(record["dropout_ratio"]))
def test_dropout_has_the_statistics_of_caffe(record: dict) -> None:
    torch.manual_seed(4)
    layer = Dropout(record["dropout_ratio"])
    x = torch.ones(record["elements"], requires_grad=True)
    y = layer(x)
    assert (y == 0).float().mean().item() == pytest.approx(record["zero_fraction"][0], abs=0.02)
    assert y.max().item() == pytest.approx(record["kept_value"])
    y.sum().backward()
    assert torch.equal(x.grad, y.detach()), "backward has the mask of forward"
    assert not torch.equal(layer(x), y), "every forward has a new mask"


def test_stochastic_pooling_draws_in_proportion_to_the_values() -> None:
    torch.manual_seed(5)
    x = torch.tensor([[1.0, 3.0], [0.0, 4.0]]).repeat(20000, 1, 1, 1).requires_grad_()
    y = Pooling(STOCHASTIC, (2, 2))(x)
    shares = [(y == value).float().mean().item() for value in (0.0, 1.0, 3.0, 4.0)]
    assert shares == pytest.approx([0.0, 1 / 8, 3 / 8, 4 / 8], abs=0.02)
    y.sum().backward()
    assert torch.equal(x.grad.sum((1, 2, 3)), torch.ones(20000)), "one element gets the gradient"
    assert torch.equal((x * x.grad).sum((2, 3)), y[:, :, 0, 0]), "that which was drawn"


def test_stochastic_pooling_weighs_in_test() -> None:
    x = torch.tensor([[[[1.0, 3.0], [0.0, 4.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    y = Pooling(STOCHASTIC, (2, 2), phase=1)(x)
    assert y.flatten().tolist() == pytest.approx([26 / 8, 0.0])
