"""Execution settings of a solver: precision, layout, recomputation, loss scaling."""

from __future__ import annotations

import pytest
import torch

from cortado.netdef.execution import Execution, fastest_precision
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError, ResourceError
from cortado.proto.text import parse
from cortado.solvers import Solver
from cortado.solvers.scaling import LossScaler

SOLVER = """
base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 4 random_seed: 4 display: 0
snapshot_after_train: false
net_param {
  layer { name: "in" type: "DummyData" top: "data" top: "label" dummy_data_param {
    shape { dim: 4 dim: 3 dim: 10 dim: 10 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { value: 1 } } }
  layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {
    num_output: 8 kernel_size: 3 bias_term: false weight_filler { type: "msra" } } }
  layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }
  layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
  layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
  layer { name: "fc" type: "InnerProduct" bottom: "c" top: "fc" inner_product_param {
    num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
}
"""


def trained(more: str = "") -> dict[str, torch.Tensor]:
    with Solver(parse(SOLVER + more, caffe_pb2.SolverParameter)) as solver:
        solver.step(4)
        return {name: value.clone() for name, value in solver.net.state_dict().items()}


@pytest.mark.parametrize(
    ("more", "tolerance"),
    [
        ("memory_format: CONTIGUOUS", 1e-4),
        ("memory_format: CHANNELS_LAST", 1e-4),
        ('recompute: "AUTO"', 1e-4),
        ('recompute: "c" recompute: "[bs]*"', 1e-4),
        ("precision: TF32", 1e-4),  # the CPU has no such products and computes in float32
        ("precision: BF16", 5e-2),
    ],
)
def test_training_leads_to_the_same_weights(more: str, tolerance: float) -> None:
    expected, found = trained(), trained(more)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


def test_threads_are_set_while_training() -> None:
    before, seen = torch.get_num_threads(), []
    message = parse(SOLVER + f"threads: {before + 1}", caffe_pb2.SolverParameter)
    with Solver(message, listeners=[lambda event: seen.append(torch.get_num_threads())]) as solver:
        seen.clear()
        solver.step(1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_fp16_needs_hardware() -> None:
    with pytest.raises(ResourceError, match="FP16"):
        trained("precision: FP16")


def test_cuda_graphs_need_a_gpu() -> None:
    with pytest.raises(ResourceError, match="cuda_graphs"):
        trained("cuda_graphs: true")


def test_automatic_precision_is_one_the_device_has() -> None:
    device = torch.device("cpu")
    assert Execution(precision="AUTO").resolved(device).precision == fastest_precision(device)


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision must be"):
        Execution(precision="FP8")


def test_scaler_divides_and_grows_and_backs_off() -> None:
    scaler = LossScaler(torch.device("cpu"), scale=1024.0)
    gradients = [torch.full((3,), 2048.0)]
    assert scaler.unscale(gradients)
    assert gradients[0].tolist() == [2.0] * 3
    assert not scaler.unscale([torch.tensor([float("inf")])])
    assert scaler.scale == 512.0
    for _ in range(2000):
        scaler.unscale([torch.ones(1)])
    assert scaler.scale == 1024.0
