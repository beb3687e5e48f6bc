"""Nets with ``caffe_quirks`` compute Caffe's mistakes; others do not."""

from pathlib import Path

import pytest
import torch

from cortado.netdef import Net
from cortado.proto import caffe_pb2
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
