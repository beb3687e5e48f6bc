"""Nets with ``caffe_quirks`` compute Caffe's mistakes; others do not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cortado.netdef import Net
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError
from cortado.proto.text import parse
from support.goldens import CASES, NOT_REPEATED, Case
from support.net_goldens import run_net


@pytest.mark.parametrize("name", NOT_REPEATED)
def test_caffes_result_on_request(name: str) -> None:
    case = Case(Path(CASES, name).with_suffix(".npz"))
    run_net(case, caffe_quirks=True).assert_agrees()
    assert run_net(case).faults


@pytest.mark.parametrize(
    ("quirks", "result", "gradients"),
    [("true", -70.0, [2.0, 6.0, -2.0]), ("false", -68.0, [2.0, 3.0, -1.0])],
)
def test_sum_over_its_first_bottom(quirks: str, result: float, gradients: list[float]) -> None:
    """2 a + 3 b - c of 1, 10 and 100: Caffe leaves out a and multiplies all gradients by its 2."""
    text = f"""
    force_backward: true caffe_quirks: {quirks}
    layer {{ name: "data" type: "Input" top: "a" top: "b" top: "c"
      input_param {{ shape {{ dim: 1 }} }} }}
    layer {{ name: "sum" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "a"
      eltwise_param {{ coeff: [2, 3, -1] }} loss_weight: 1 }}"""
    net = Net(parse(text, caffe_pb2.NetParameter))
    inputs = {
        name: torch.tensor([value], requires_grad=True)
        for name, value in (("a", 1.0), ("b", 10.0), ("c", 100.0))
    }
    outputs, loss = net.run(inputs)
    loss.backward()
    assert outputs["a"].item() == result
    assert [x.grad.item() for x in inputs.values()] == gradients


@pytest.mark.parametrize(("power", "shift"), [(2.0, 0.5), (3.0, 0.0), (0.5, 1.0), (0.0, 1.0)])
def test_power_over_its_bottom(power: float, shift: float) -> None:
    text = f"""
    force_backward: true caffe_quirks: true
    layer {{ name: "data" type: "Input" top: "x" input_param {{ shape {{ dim: 1 }} }} }}
    layer {{ name: "power" type: "Power" bottom: "x" top: "x" loss_weight: 7
      power_param {{ power: {power} scale: 2 shift: {shift} }} }}"""
    net = Net(parse(text, caffe_pb2.NetParameter))
    x = torch.tensor([1.5], requires_grad=True)
    outputs, loss = net.run({"x": x})
    loss.backward()
    y = (2 * 1.5 + shift) ** power
    inner = 2 * y + shift  # the blob holds y by then
    slope = 4 * inner if power == 2 else 2 * power * y / inner
    assert outputs["x"].item() == pytest.approx(y)
    assert x.grad.item() == pytest.approx(slope**2), "whatever the weight of the loss"


X = (-1.3, -0.4, 0.2, 1.1)
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "BNLL": lambda x: torch.log1p(x.exp()),
    "Clip": lambda x: x.clamp(-0.5, 0.5),
    "Log": lambda x: torch.log(2 * x + 1),
}


def in_place(kind: str, options: str, quirks: bool, x: Tensor) -> Tensor | None:
    """The gradient of the bottom, for a loss of half the sum of squares of the top."""
    text = f"""
    force_backward: true caffe_quirks: {str(quirks).lower()}
    layer {{ name: "data" type: "Input" top: "x" input_param {{ shape {{ dim: 4 }} }} }}
    layer {{ name: "layer" type: "{kind}" bottom: "x" top: "x" {options} }}
    layer {{ name: "loss" type: "Reduction" bottom: "x" top: "loss" loss_weight: 1
      reduction_param {{ operation: SUMSQ coeff: 0.5 }} }}"""
    net = Net(parse(text, caffe_pb2.NetParameter))
    x = x.clone().requires_grad_()
    net.run({"x": x})[1].backward()
    return x.grad


@pytest.mark.parametrize(
    ("kind", "options", "x", "slope"),
    [
        ("BNLL", "", X, lambda y, grad: grad * torch.sigmoid(y)),
        ("Clip", "clip_param { min: -0.5 max: 0.5 }", X, lambda y, grad: grad),
        (
            "Log",
            "log_param { scale: 2 shift: 1 }",
            (0.3, 0.5, 0.9, 1.4),
            lambda y, grad: (2 / (2 * y + 1)) ** 2,
        ),
    ],
)
def test_slopes_in_place(
    kind: str, options: str, x: tuple[float, ...], slope: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """As one step of Caffe's solver shows: the slope is that at the overwritten values."""
    bottom = torch.tensor(x)
    function = FORMULAS[kind]
    y = function(bottom)
    torch.testing.assert_close(in_place(kind, options, True, bottom), slope(y, y))
    wanted = bottom.clone().requires_grad_()
    function(wanted).square().sum().mul(0.5).backward()
    torch.testing.assert_close(in_place(kind, options, False, bottom), wanted.grad)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "LRN" bottom: "a" top: "a"',
        'type: "MVN" bottom: "a" top: "a"',
        'type: "Eltwise" bottom: "a" bottom: "b" top: "a" eltwise_param { operation: MAX }',
        'type: "Eltwise" bottom: "a" bottom: "b" top: "a" eltwise_param { operation: PROD }',
    ],
)
def test_what_nothing_can_be_trained_with_is_refused(layer: str) -> None:
    text = f"""
    layer {{ name: "data" type: "Input" top: "a" top: "b"
      input_param {{ shape {{ dim: [1, 2, 3, 3] }} }} }}
    layer {{ name: "layer" {layer} }}"""
    assert Net(parse(text, caffe_pb2.NetParameter)).outputs
    with pytest.raises(ConfigError, match="values that it has overwritten"):
        Net(parse("caffe_quirks: true" + text, caffe_pb2.NetParameter))
