"""Products of few rows by the kernels against torch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cortado.layers.linear import linear
from cortado.layers.native import few_rows
from support.kernels import needs_compiler

# rows, inputs, outputs: tiles and chunks that are full and not, outputs that fill no stream
SHAPES = [(1, 4096, 33), (2, 144, 1000), (3, 512, 257), (5, 1040, 130), (16, 2064, 64)]
SHAPES += [(17, 256, 512), (32, 272, 500)]

pytestmark = needs_compiler


def made(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and the gradient of the top."""
    torch.manual_seed(rows + inputs)
    weight = torch.randn(outputs, inputs) * inputs**-0.5
    x, bias, grad = torch.randn(rows, inputs), torch.randn(outputs), torch.randn(rows, outputs)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), grad


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
def test_is_as_exact_as_torch(shape: tuple[int, int, int], biased: bool, threads: int) -> None:
    x, weight, bias, grad = made(*shape)
    leaves = (x, weight, bias) if biased else (x, weight)
    assert few_rows.suits(x, weight, bias if biased else None)

    def top_and_gradients(leaves: tuple[Tensor, ...], ours: bool) -> list[Tensor]:
        bias = leaves[2] if biased else None
        y = (linear if ours else F.linear)(leaves[0], leaves[1], bias)
        return [y, *torch.autograd.grad(y, leaves, grad.to(y.dtype))]

    found, theirs = top_and_gradients(leaves, True), top_and_gradients(leaves, False)
    doubles = tuple(leaf.detach().double().requires_grad_() for leaf in leaves)
    right = top_and_gradients(doubles, False)
    for a, b, exact in zip(found, theirs, right, strict=True):
        assert a.shape == b.shape
        errors = [(each.double() - exact).abs().max().item() for each in (a, b)]
        assert errors[0] <= 2 * errors[1] + 1e-7


def test_axes_before_the_last_are_rows(threads: int) -> None:
    x, weight, bias, _ = made(6, 512, 300)
    folded = x.detach().view(2, 3, 512).requires_grad_()
    y = linear(folded, weight, bias)
    torch.testing.assert_close(y, linear(x, weight, bias).view(2, 3, 300), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(y.square().sum(), folded)
    assert gradient.shape == (2, 3, 512)


def test_a_relu_keeps_nan_and_bottoms_need_not_be_contiguous(threads: int) -> None:
    x, weight, bias, _ = (each.detach() for each in made(4, 1024, 200))
    wide = torch.cat([x, x], 1)[:, 1024:]
    expected = F.linear(x, weight, bias).relu()
    torch.testing.assert_close(few_rows.product(wide, weight, bias, True), expected)
    x[2, 7] = torch.nan
    found = few_rows.product(x, weight, bias, rectified=True)
    assert found[2].isnan().all()
    assert found[[0, 1, 3]].isfinite().all()


def test_autocast_has_the_top_in_fewer_bits_and_reads_all_of_the_weights() -> None:
    x, weight, bias, grad = made(8, 1024, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert few_rows.suits(x, weight, bias)
        y = linear(x.to(torch.bfloat16), weight, bias)
        theirs = F.linear(x.to(torch.bfloat16), weight, bias)
    assert y.dtype == theirs.dtype == torch.bfloat16
    exact = F.linear(x.to(torch.bfloat16).double(), weight.double(), bias.double())
    errors = [(each.double() - exact).square().mean() for each in (y, theirs)]
    assert errors[0] < errors[1]
    gradients = torch.autograd.grad(y, (x, weight, bias), grad.to(torch.bfloat16))
    assert [each.dtype for each in gradients] == [torch.float32] * 3


def test_gradients_can_be_differentiated_again() -> None:
    x, weight, bias, _ = made(4, 512, 300)

    def penalty(y: Tensor) -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, weight, bias))

    found, expected = penalty(linear(x, weight, bias)), penalty(F.linear(x, weight, bias))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_factors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(torch.randn(4, 512), torch.randn(300, 1024))


@pytest.mark.parametrize(
    ("rows", "weight"),
    [
        (33, torch.randn(300, 512)),
        (0, torch.randn(300, 512)),
        (4, torch.randn(300, 500)),
        (4, torch.randn(30, 512)),
        (4, torch.randn(512, 300).t()),
        (4, torch.randn(300, 512).double()),
        (4, torch.randn(300, 512).bfloat16()),
    ],
    ids=["many", "none", "500 inputs", "small", "turned", "float64", "bfloat16"],
)
def test_torch_does_the_rest(rows: int, weight: Tensor) -> None:
    x = torch.randn(rows, weight.shape[1], dtype=weight.dtype)
    assert not few_rows.suits(x, weight, None)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=0, atol=0)
