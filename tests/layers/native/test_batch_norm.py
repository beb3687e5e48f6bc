"""The compiled BatchNorm against torch's operations in float64, and against them in float32."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from cortado.layers.batch_norm import BatchNorm
from cortado.layers.native import batch_norm
from support.kernels import needs_compiler

#: Batch, channels (also fewer than a vector has, and not whole vectors), spatial axes.
SHAPES = [(2, 64, 7, 9), (3, 21, 5, 5), (2, 3, 4, 6), (37, 50), (1, 150, 13, 3), (2, 16, 3, 4, 5)]
EPS = 1e-5
DTYPES = [torch.float32, torch.bfloat16]

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def for_small_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "_FEWEST_VALUES", 1)


def innermost(x: Tensor) -> Tensor:
    """``x`` with its channels innermost in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def made(
    shape: tuple[int, ...], mean: float = 0.5, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Blobs of the ``dtype``; weight and bias are float32 in any case."""
    generator = torch.Generator().manual_seed(sum(shape))
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    return {
        "x": innermost(draw(*shape) * 2 + mean).to(dtype),
        "weight": draw(shape[1]),
        "bias": draw(shape[1]),
        "addend": innermost(draw(*shape)).to(dtype),
        "grad": innermost(draw(*shape)).to(dtype),
    }


def by_torch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, addend: Tensor | None, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = torch.zeros(2, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    y = torch.batch_norm(x, weight, bias, mean, variance, True, 1.0, EPS, False)
    y = y if addend is None else y + addend
    return y.relu() if relu else y, mean, variance


def by_kernel(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, addend: Tensor | None, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    plan = batch_norm.plan(x, weight, bias, addend)
    assert plan is not None
    return batch_norm.normalize(plan, x, weight, bias, addend, EPS, relu)


def everything(function, given: dict[str, Tensor], used: list[str], wanted: list[str], relu: bool):  # type: ignore[no-untyped-def]
    """Top, statistics and the gradients of the ``wanted``."""
    leaves = {name: given[name].clone().requires_grad_(name in wanted) for name in used}
    slots = [leaves.get(name) for name in ("x", "weight", "bias", "addend")]
    y, mean, variance = function(*slots, relu)
    found = {"y": y.detach(), "mean": mean, "variance": variance}
    grads = torch.autograd.grad(y, [leaves[name] for name in wanted], given["grad"])
    return found | dict(zip(wanted, grads, strict=True))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("used", ["x", "x weight", "x weight bias", "x weight bias addend"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_as_torch_in_float64(
    dtype: torch.dtype, shape: tuple[int, ...], used: str, relu: bool, threads: int
) -> None:
    given, names = made(shape, dtype=dtype), used.split()
    exact = {name: value.double() for name, value in given.items()}
    expected = everything(by_torch, exact, names, names, relu)
    found = everything(by_kernel, given, names, names, relu)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        scale, blob = value.abs().max().item(), value.dim() > 1
        assert found[name].dtype == (dtype if blob else torch.float32)
        near = 2.0**-8 if blob and dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(
            found[name].double(), value, rtol=near, atol=2e-6 * scale, msg=name
        )


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_only_some_gradients(count: int, relu: bool, dtype: torch.dtype) -> None:
    given, names = made((2, 21, 5, 7), dtype=dtype), ["x", "weight", "bias", "addend"]
    expected = everything(by_kernel, given, names, names, relu)
    for wanted in itertools.combinations(names, count):
        found = everything(by_kernel, given, names, list(wanted), relu)
        for name in found:
            assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeats_itself(dtype: torch.dtype, threads: int) -> None:
    given, names = made((3, 48, 31, 17), dtype=dtype), ["x", "weight", "bias", "addend"]
    first = everything(by_kernel, given, names, names, True)
    for _ in range(5):
        again = everything(by_kernel, given, names, names, True)
        assert all(torch.equal(again[name], value) for name, value in first.items())


@pytest.mark.parametrize("mean", [0.0, 30.0, 3000.0])
def test_statistics_as_exact_as_torchs(mean: float) -> None:
    x = made((4, 32, 40, 40), mean)["x"]
    _, *exact = by_torch(x.double(), None, None, None, False)
    _, *theirs = by_torch(x, None, None, None, False)
    _, *ours = by_kernel(x, None, None, None, False)
    for right, other, value in zip(exact, theirs, ours, strict=True):
        error, allowed = (value - right).abs().max(), (other - right).abs().max()
        assert error <= max(allowed, 1e-6 * right.abs().max())


def test_a_channel_that_is_constant_or_jumps() -> None:
    x = innermost(torch.zeros(2, 16, 20, 20))
    x[:, 1] = 7.3
    x[1, 2] = 1e6  # the first pixels say nothing about the others
    y, mean, variance = by_kernel(x, None, None, None, False)
    assert torch.equal(y[:, :2], torch.zeros(2, 2, 20, 20))
    assert torch.equal(variance[:2], torch.zeros(2))
    torch.testing.assert_close(mean[:3], torch.tensor([0, 7.3, 5e5]))
    torch.testing.assert_close(variance[2], torch.tensor(2.5e11 * 800 / 799))
    torch.testing.assert_close(y[:, 2, 0, 0], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_spreads_as_by_torch(bad: float, dtype: torch.dtype) -> None:
    given, names = made((2, 32, 5, 5), dtype=dtype), ["x", "weight", "bias", "addend"]
    given["x"][0, 3, 2, 2] = bad
    given["addend"][1, 5, 0, 0] = float("nan")
    expected = everything(by_torch, given, names, names, True)
    found = everything(by_kernel, given, names, names, True)
    for name, value in expected.items():
        assert torch.equal(found[name].isfinite(), value.isfinite()), name


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_takes_kernels_and_counts_the_same(
    addend: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autocast leaves BatchNorm in the type of its bottom, statistics in float32."""
    given, results = made((3, 24, 6, 6), dtype=dtype), []
    for fewest in (1, 1 << 40):
        monkeypatch.setattr(batch_norm, "_FEWEST_VALUES", fewest)
        layer = BatchNorm(24)
        layer.materialize("cpu")
        more = given["addend"] if addend else None
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                taken = batch_norm.plan(given["x"], given["weight"], given["bias"], more)
                assert (taken is not None) == (fewest == 1)
                y = layer.normalize(given["x"], given["weight"], given["bias"], more, True)
        results.append([y, layer.mean, layer.variance, layer.scale_factor])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        # In bfloat16 torch rounds before the sum and after it.
        near = 1e-5 if ours.dtype == torch.float32 else 2.0**-7
        torch.testing.assert_close(ours, theirs, rtol=near, atol=near)


def test_only_for_channels_innermost_in_their_types() -> None:
    x = torch.randn(2, 16, 5, 5)
    assert batch_norm.plan(x) is None
    assert batch_norm.plan(innermost(x)) is not None
    assert batch_norm.plan(innermost(x).double()) is None
    assert batch_norm.plan(innermost(x), None, x) is None
    assert batch_norm.plan(innermost(x), None, innermost(x)) is not None
    assert batch_norm.plan(innermost(x), None, innermost(x)[:1]) is None
    assert batch_norm.plan(torch.randn(1, 16)) is None  # one value a channel has no variance
    assert batch_norm.plan(innermost(x).bfloat16()) is not None
    assert batch_norm.plan(innermost(x).half()) is None
    assert batch_norm.plan(innermost(x).bfloat16(), torch.ones(16)) is not None
    assert batch_norm.plan(innermost(x).bfloat16(), torch.ones(16).bfloat16()) is None
    assert batch_norm.plan(innermost(x).bfloat16(), None, innermost(x)) is None
