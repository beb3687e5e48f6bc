"""What kernels compute can be differentiated twice, by torch's operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cortado.layers.batch_norm import BatchNorm
from cortado.layers.lrn import LRN
from cortado.layers.native import library
from cortado.layers.pooling import Grid, average, maximum
from support.kernels import needs_compiler

pytestmark = needs_compiler
SHAPE = (4, 16, 20, 18)


def arranged(seed: int) -> Tensor:
    values = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def normalised(relu: bool, adds: bool) -> Callable[[Tensor, Tensor], Tensor]:
    layer = BatchNorm(16)
    layer.materialize()
    generator = torch.Generator().manual_seed(9)
    weight = torch.rand(16, generator=generator).requires_grad_()
    bias = torch.randn(16, generator=generator)
    return lambda x, other: layer.normalize(x, weight, bias, other if adds else None, relu)


#: Windows that overlap, some of them over the edge.
GRID = Grid(kernel=(5, 4), stride=(3, 2), pad=(2, 1), sizes=(20, 18), out=(7, 9))

OPERATIONS = {
    "maximum": lambda x, _: maximum(x, GRID),
    "average": lambda x, _: average(x, GRID),
    "lrn": lambda x, _: LRN(5, 2.0, 0.75, 1.5)(x),
    "normalised": normalised(relu=False, adds=False),
    "normalised, relu": normalised(relu=True, adds=False),
    "normalised, sum, relu": normalised(relu=True, adds=True),
}


def penalty(operation: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """The loss of a gradient's size, and its gradients."""
    x, other = arranged(1).requires_grad_(), arranged(2).requires_grad_()
    y = operation(x, other)
    (slope,) = torch.autograd.grad((y * y * y).sum(), x, create_graph=True)
    loss = slope.square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, (x, other), allow_unused=True)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_is_that_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = penalty(OPERATIONS[name])
    with monkeypatch.context() as without:
        without.setattr(library, "suits", lambda *tensors, **options: False)
        if name == "lrn":
            without.setattr("cortado.layers.lrn._AcrossChannels.apply", by_torch)
        expected = penalty(OPERATIONS[name])
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


def by_torch(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)
