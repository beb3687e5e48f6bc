"""LRN by the kernel against torch's own in float64, and against the way without a kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cortado.layers.lrn import LRN
from cortado.layers.native import lrn as kernels
from support.kernels import needs_compiler

DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [
    (2, 96, 7, 5),
    (1, 17, 3, 3),  # one channel more than a vector
    (3, 20, 9, 8),
    (1, 1000, 3, 2),  # few pixels at a time
    (5, 128, 41, 41),  # a top that is past the caches' size
]


def arranged(shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def both(layer: LRN, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The top and the gradient of the bottom."""
    leaf = x.detach().requires_grad_()
    y = layer(leaf)
    return y.detach(), torch.autograd.grad(y, leaf, grad)[0]


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("size", [1, 5, 9])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_agrees_with_float64(
    shape: tuple[int, ...],
    beta: float,
    size: int,
    dtype: torch.dtype,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = LRN(size, 0.7, beta, 1.5)
    x, grad = (arranged(shape) * 3).to(dtype), arranged(shape).to(dtype)
    near = 2e-6 if dtype == torch.float32 else 2.0**-8
    assert kernels.plan(x, size, 0.7, beta, 1.5) is not None
    found = both(layer, x, grad)
    leaf = x.double().requires_grad_()
    top = F.local_response_norm(leaf, size, 0.7, beta, 1.5)
    exact = top.detach(), torch.autograd.grad(top, leaf, grad.double())[0]
    monkeypatch.setattr(kernels, "plan", lambda *_: None)
    without = both(layer, x, grad)
    for ours, theirs, right in zip(found, without, exact, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert ours.dtype == theirs.dtype == dtype
        torch.testing.assert_close(ours.double(), right, rtol=near, atol=1e-6)
        torch.testing.assert_close(ours, theirs, rtol=2 * near, atol=2e-6)
        errors = [(each.double() - right).abs().max() for each in (ours, theirs)]
        assert errors[0] < 3 * errors[1] + 1e-7


@needs_compiler
def test_a_window_may_be_wider_than_the_channels(threads: int) -> None:
    x, grad = arranged((2, 16, 4, 4)), arranged((2, 16, 4, 4))
    found = both(LRN(61, 0.5, 0.75, 1.0), x, grad)
    energy = (x.double() ** 2).sum(1, keepdim=True)
    expected = x * (1 + 0.5 / 61 * energy) ** -0.75
    torch.testing.assert_close(found[0].double(), expected, rtol=2e-6, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
def test_extreme_values_stay_in_their_windows(beta: float, threads: int) -> None:
    x = arranged((2, 32, 6, 6))
    x[0, 3, 0, 0], x[0, 9, 1, 1], x[0, 20, 2, 2] = torch.nan, torch.inf, 1e25
    x[1, :, 3, 3], x[1, :, 4, 4] = 0, 1e-30
    top, gradient = both(LRN(5, 1.0, beta, 1.0), x, torch.ones_like(x))
    squares = F.pad(x * x, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    expected = x * (squares / 5 + 1) ** -beta
    torch.testing.assert_close(top, expected, rtol=4e-6, atol=2e-6, equal_nan=True)
    assert top[0, 20, 2, 2] == 0  # an infinite scale
    assert top[0, 9, 1, 1].isnan()
    assert gradient[0, 8:, 0, 0].isfinite().all()  # channels that share no window with channel 3
    assert gradient[1].isfinite().all()


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeated_runs_and_gradients_of_any_layout(dtype: torch.dtype, threads: int) -> None:
    x, grad = (arranged((2, 48, 7, 6)).to(dtype) for _ in range(2))
    first = both(LRN(), x, grad)
    for other in (grad.contiguous(), torch.cat([grad, grad], 1)[:, 48:]):
        again = both(LRN(), x, other)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_autocast_leaves_the_type_alone(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = arranged((2, 16, 8, 8)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.plan(x, 5, 1.0, 0.75, 1.0) is not None
        found = both(LRN(), x, x)
        monkeypatch.setattr(kernels, "plan", lambda *_: None)
        expected = both(LRN(), x, x)
    assert [each.dtype for each in found] == [each.dtype for each in expected] == [dtype] * 2


@needs_compiler
@pytest.mark.parametrize(
    ("x", "beta"),
    [
        (torch.randn(2, 16, 8, 8), 0.75),
        (arranged((2, 16, 8, 8)).double(), 0.75),
        (arranged((2, 16, 8, 8)).half(), 0.75),
        (arranged((2, 15, 8, 8)), 0.75),
        (arranged((1, 4096, 1, 2)), 0.75),
        (arranged((2, 16, 8, 8)), 0.6),
    ],
    ids=[
        "default layout",
        "float64",
        "float16",
        "15 channels",
        "4096 channels",
        "no power by roots",
    ],
)
def test_torch_does_the_rest(x: Tensor, beta: float) -> None:
    assert kernels.plan(x, 5, 1.0, beta, 1.0) is None


@needs_compiler
def test_no_gradient_without_a_need() -> None:
    x = arranged((2, 16, 8, 8))
    assert not LRN()(x).requires_grad
    with torch.no_grad():
        assert not LRN()(x.requires_grad_()).requires_grad
