"""Convolutions over single pixels that run as matrix products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cortado.layers.convolution import Convolution
from cortado.layers.windows import Windows


def convolution(channels: int, outputs: int, stride: int = 1, pad: int = 0) -> Convolution:
    windows = Windows(1, (1, 1), (stride, stride), (pad, pad), (1, 1))
    layer = Convolution(channels, outputs, windows)
    layer.materialize()
    torch.manual_seed(2)
    with torch.no_grad():
        for blob in layer.parameters():
            blob.normal_()
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return layer


def blob(*shape: int) -> torch.Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("images", [1, 3])
def test_a_product_gives_the_same(images: int, rectified: bool) -> None:
    layer, x = convolution(384, 512), blob(images, 384, 5, 6).requires_grad_()
    assert layer._multiplies(x)
    y = layer.rectified(x) if rectified else layer(x)[0]
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = blob(*y.shape)
    y.backward(grad)
    inputs = [each.detach().double().requires_grad_() for each in (x, layer.weight, layer.bias)]
    expected = F.conv2d(*inputs)
    expected = F.relu(expected) if rectified else expected
    expected.backward(grad.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    for found, right in zip((x, layer.weight, layer.bias), inputs, strict=True):
        torch.testing.assert_close(found.grad.double(), right.grad, rtol=1e-4, atol=1e-4)


def test_what_is_no_product() -> None:
    few = blob(2, 512, 4, 4)
    assert convolution(512, 512)._multiplies(few)
    assert not convolution(512, 512)._multiplies(few.contiguous())
    assert not convolution(512, 512)._multiplies(blob(2, 512, 48, 48))
    assert not convolution(512, 512, stride=2)._multiplies(few)
    assert not convolution(512, 512, pad=1)._multiplies(few)
    assert not convolution(512, 16)._multiplies(few)
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolution(512, 512)._multiplies(few)
