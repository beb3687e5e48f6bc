"""LRN over many pixels and channels, which a CPU takes in portions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cortado.layers import lrn
from cortado.layers.lrn import LRN

SIZE, ALPHA, BETA, K = 5, 0.3, 0.75, 2.0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [3, 64, 97, 200])
def test_portions_are_those_of_the_whole(
    layout: torch.memory_format, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lrn, "_IN_CACHE", 1000)  # several portions, the last one smaller
    torch.manual_seed(0)
    x = torch.randn(2, channels, 5, 7, dtype=torch.float64).contiguous(memory_format=layout)
    grad = torch.randn_like(x)
    x.requires_grad_()
    y = LRN(SIZE, ALPHA, BETA, K)(x)
    expected = F.local_response_norm(x, SIZE, ALPHA, BETA, K)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(expected, x, grad)[0]
    )
    assert y.is_contiguous(memory_format=layout)


def test_scale_is_float32_for_inputs_of_less() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 96, 4, 4).bfloat16()
    exact = F.local_response_norm(x.double(), SIZE, ALPHA, BETA, K)
    y = LRN(SIZE, ALPHA, BETA, K)(x)
    assert y.dtype == torch.bfloat16
    # Half a unit in the last place: rounded once, at the end.
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=0)
