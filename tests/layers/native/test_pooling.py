"""Pooling by the kernel against torch's operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cortado.layers import pooling
from cortado.layers.native import pooling as kernels
from cortado.layers.pooling import AVE, MAX, Grid, make_grid, pooled
from support.kernels import needs_compiler

DTYPES = [torch.float32, torch.bfloat16]
#: How far results may be from exact ones: by what the last rounding does.
NEAR = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8}

Pair = tuple[int, int]
# shape, kernel, stride, pad, whether sizes are rounded up
CASES = [
    ((3, 32, 9, 10), (3, 3), (2, 2), (0, 0), True),  # the last window goes beyond the border
    ((2, 20, 8, 8), (2, 2), (2, 2), (0, 0), True),  # channels that fill no whole vectors
    ((2, 50, 7, 6), (3, 3), (1, 1), (1, 1), True),
    ((2, 16, 11, 5), (3, 2), (2, 1), (1, 1), True),
    ((1, 17, 12, 13), (5, 3), (3, 4), (2, 1), False),  # pixels that no window covers
    ((1, 33, 9, 9), (2, 2), (3, 3), (0, 0), False),  # windows apart from one another
    ((2, 64, 7, 7), (7, 7), (1, 1), (0, 0), True),  # the whole plane
    ((1, 16, 16, 16), (16, 16), (4, 4), (8, 8), True),  # as many pixels as a byte tells apart
    ((1, 16, 40, 1), (4, 1), (1, 1), (0, 0), True),
    ((4, 96, 30, 31), (3, 3), (2, 2), (1, 1), True),  # a gradient that is past the caches' size
    ((9, 128, 33, 32), (3, 3), (1, 1), (1, 1), True),
]


def arranged(shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def grid_of(shape: tuple[int, ...], *rest: Pair | bool) -> Grid:
    return make_grid((shape[2], shape[3]), *rest)  # type: ignore[arg-type]


def both(x: Tensor, grid: Grid, pool: int, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The top and the gradient of the bottom."""
    leaf = x.detach().requires_grad_()
    y = pooled(leaf, grid, pool, False)
    return y.detach(), torch.autograd.grad(y, leaf, grad.to(x.dtype))[0]


def gradient_for(x: Tensor, grid: Grid) -> Tensor:
    return arranged((*x.shape[:2], *grid.out))


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_maximum_is_exactly_torchs(
    case: tuple[tuple[int, ...], Pair, Pair, Pair, bool],
    dtype: torch.dtype,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape, *rest = case
    grid = grid_of(shape, *rest)
    # Few different values, so that there are ties.
    x = (arranged(shape) * 2).round()
    x[0, 1], x[0, 2, 0, 0], x[0, 3, -1, :] = -torch.inf, torch.inf, torch.nan
    x[0, 4] = torch.nan
    x[0, 5] *= 2.0**-134  # where numbers are denormal
    x, grad = x.to(dtype), gradient_for(x, grid).to(dtype)
    assert kernels.plan(x, grid) is not None
    found = both(x, grid, MAX, grad)
    with torch.no_grad():
        again = pooled(x, grid, MAX, False)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in (*found, again))
    assert all(each.dtype == dtype for each in (*found, again))
    monkeypatch.setattr(kernels, "plan", lambda *_: None)
    top, _ = both(x, grid, MAX, grad)
    # In bfloat16 torch rounds every sum of two.
    _, gradient = both(x.float(), grid, MAX, grad.float())
    torch.testing.assert_close(found[0], top, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(again, top, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found[1].float(), gradient, rtol=NEAR[dtype], atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average_agrees_with_float64(
    case: tuple[tuple[int, ...], Pair, Pair, Pair, bool], dtype: torch.dtype, threads: int
) -> None:
    shape, *rest = case
    grid = grid_of(shape, *rest)
    x = arranged(shape).to(dtype)
    grad = gradient_for(x, grid).to(dtype)
    assert kernels.plan(x, grid) is not None
    for found, right in zip(
        both(x, grid, AVE, grad), both(x.double(), grid, AVE, grad), strict=True
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), right, rtol=NEAR[dtype], atol=1e-6)


@needs_compiler
def test_rounds_to_bfloat16_as_torch() -> None:
    """Halves of sums: of all sizes, many just between two numbers, some infinite or NaN."""
    shape = (2, 64, 61, 62)
    torch.manual_seed(1)
    bits = torch.randint(-(1 << 15), 1 << 15, shape, dtype=torch.int16)
    # The neighbours of the even columns: themselves or close by, to the last bit.
    bits[..., 1::2] = bits[..., ::2] + torch.randint(-9, 10, bits[..., ::2].shape).short()
    x = bits.view(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    grid = grid_of(shape, (1, 2), (1, 2), (0, 0))
    assert kernels.plan(x, grid) is not None
    wide = x.float()
    expected = ((wide[..., ::2] + wide[..., 1::2]) * 0.5).bfloat16()
    assert expected.isnan().any()
    assert expected.isinf().any()
    found = pooled(x, grid, AVE, False)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pool", [MAX, AVE])
def test_autocast_leaves_the_type_alone(
    pool: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = arranged((2, 16, 8, 8)).to(dtype)
    grid = grid_of((2, 16, 8, 8), (3, 3), (2, 2), (0, 0))
    grad = gradient_for(x, grid)
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.plan(x, grid) is not None
        found = both(x, grid, pool, grad)
        monkeypatch.setattr(kernels, "plan", lambda *_: None)
        expected = both(x, grid, pool, grad)
    assert [each.dtype for each in found] == [each.dtype for each in expected] == [dtype] * 2


@needs_compiler
@pytest.mark.parametrize("pool", [MAX, AVE])
def test_any_gradient_and_repeated_runs(pool: int, threads: int) -> None:
    x = arranged((2, 48, 13, 12))
    grid = grid_of(tuple(x.shape), (3, 3), (2, 2), (0, 0))
    grad = gradient_for(x, grid)
    first = both(x, grid, pool, grad)
    wide = torch.cat([grad, grad], 1)
    for other in (grad.contiguous(), wide[:, 48:]):  # another layout; a part of a larger blob
        again = both(x, grid, pool, other)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    # A sum's gradient has no memory of its own. Of each window's all comes back, for one that
    # reaches beyond the border is divided by its own size.
    constant = both(x, grid, pool, torch.ones(()).expand_as(grad))
    torch.testing.assert_close(constant[1].sum().item(), float(grad.numel()))


@needs_compiler
def test_a_net_may_overwrite_the_top() -> None:
    x = arranged((2, 16, 8, 8)).requires_grad_()
    grid = grid_of(tuple(x.shape), (2, 2), (2, 2), (0, 0))
    pooled(x, grid, MAX, False).relu_().sum().backward()
    found, x.grad = x.grad, None
    pooled(x, grid, MAX, False).relu().sum().backward()
    assert found is not None
    assert x.grad is not None
    assert torch.equal(found, x.grad)


@needs_compiler
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 16, 8, 8),  # another layout
        arranged((2, 16, 8, 8)).double(),
        arranged((2, 16, 8, 8)).half(),
        arranged((2, 15, 8, 8)),  # fewer channels than a vector's lanes
        torch.empty(2, 16, 8, 8, device="meta").contiguous(memory_format=torch.channels_last),
    ],
    ids=["default layout", "float64", "float16", "15 channels", "meta"],
)
def test_torch_does_the_rest(x: Tensor) -> None:
    assert kernels.plan(x, grid_of(tuple(x.shape), (3, 3), (2, 2), (0, 0))) is None


@needs_compiler
def test_windows_that_torch_cannot_make_are_left_to_padding() -> None:
    x = arranged((1, 16, 7, 7))
    grid = grid_of(tuple(x.shape), (2, 2), (4, 4), (0, 0))  # the last windows have no pixel
    assert grid.native() is None
    assert kernels.plan(x, grid) is None
    assert pooling.maximum(x, grid)[0, 0, -1, -1] == torch.finfo(torch.float32).min
