"""Matrix products by tiles and by vectors against float64, beside torch's own float32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cortado.layers.native import library, products
from support.kernels import forget, needs_compiler

# rows, depth, columns: blocks and chunks that are full and not, several parts of depth and columns
SHAPES = [(800, 256, 256), (160, 70, 420), (1030, 530, 200), (193, 49, 2101), (400, 1100, 400)]


@pytest.fixture(params=["tiles", "vectors"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of computing; where the processor has no tiles, they are the same."""
    if request.param == "vectors":
        monkeypatch.setattr(library, "_FLAGS", (*library._FLAGS, *without_tiles()))
    monkeypatch.setattr(library, "has_tiles", lambda: True)
    forget()
    yield request.param
    monkeypatch.undo()
    forget()


def without_tiles() -> tuple[str, ...]:
    return ("-mno-amx-bf16",) if library.has_tiles() else ()


def matrix(rows: int, columns: int, turned: bool) -> Tensor:
    return torch.randn(columns, rows).t() if turned else torch.randn(rows, columns)


def error(found: Tensor, right: Tensor) -> float:
    return ((found - right).square().mean().sqrt() / right.square().mean().sqrt()).item()


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False)])
def test_is_as_accurate_as_torch(
    shape: tuple[int, int, int], turned: tuple[bool, bool], way: str, threads: int
) -> None:
    torch.manual_seed(0)
    rows, depth, columns = shape
    a, b = matrix(rows, depth, turned[0]), matrix(depth, columns, turned[1])
    right = a.double() @ b.double()
    found = products.mm(a, b)
    assert found.shape == right.shape
    assert error(found, right) <= 1.1 * error(torch.mm(a, b), right)
    assert torch.equal(found, products.mm(a, b))


@needs_compiler
def test_products_of_wide_range_are_exact_to_float32(way: str) -> None:
    """Numbers of very different size in one sum, and of either sign."""
    torch.manual_seed(0)
    a = torch.randn(256, 128) * 10 ** (8 * torch.rand(256, 128) - 4)
    b = torch.randn(128, 256) * 10 ** (8 * torch.rand(128, 256) - 4)
    right, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    torchs = ((torch.mm(a, b) - right).abs() / size).max()
    assert ((products.mm(a, b) - right).abs() / size).max() <= 1.2 * torchs


@needs_compiler
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_stays_so(bad: float, way: str) -> None:
    a, b = torch.randn(256, 128), torch.randn(128, 256)
    a[5, 7] = bad
    found = products.mm(a, b)
    assert not found[5].isfinite().any()
    assert found[:5].isfinite().all()
    assert found[6:].isfinite().all()


@needs_compiler
def test_linear_has_the_gradients_of_torch(way: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(10, 80, 96), torch.randn(256, 96), torch.randn(256)]
    results = []
    for function, dtype in (
        (products.linear, torch.float32),
        (F.linear, torch.float32),
        (F.linear, torch.float64),
    ):
        leaves = [each.detach().to(dtype).requires_grad_() for each in inputs]
        y = function(*leaves)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), leaves)])
    for found, torchs, right in zip(*results, strict=True):
        assert error(found, right) <= 1.2 * error(torchs, right)


def test_small_products_and_other_types_are_torchs() -> None:
    a, b = torch.randn(8, 8), torch.randn(8, 8)
    assert torch.equal(products.mm(a, b), torch.mm(a, b))
    a, b = torch.randn(300, 300).double(), torch.randn(300, 300).double()
    assert torch.equal(products.mm(a, b), torch.mm(a, b))
