"""Predicted memory against what torch really allocates."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from cortado.layers.native import library
from cortado.netdef import Net
from cortado.netdef.execution import Execution
from cortado.netdef.prediction import batched, largest_batch, predict
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from support.kernels import needs_compiler

BLOCK = """
layer {{ name: "c{n}" type: "Convolution" bottom: "{x}" top: "c{n}"
  convolution_param {{ num_output: 32 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "b{n}" type: "BatchNorm" bottom: "c{n}" top: "c{n}" }}
layer {{ name: "s{n}" type: "Scale" bottom: "c{n}" top: "c{n}" scale_param {{ bias_term: true }} }}
layer {{ name: "r{n}" type: "ReLU" bottom: "c{n}" top: "c{n}" }}
"""
NET = (
    'layer { name: "in" type: "Input" top: "data" top: "label" input_param { '
    "shape { dim: 8 dim: 3 dim: 48 dim: 48 } shape { dim: 8 } } }"
    'layer { name: "first" type: "Convolution" bottom: "data" top: "first"'
    " convolution_param { num_output: 64 kernel_size: 3 pad: 1 } }"
    'layer { name: "pool" type: "Pooling" bottom: "first" top: "pool"'
    " pooling_param { kernel_size: 3 stride: 2 } }"
    'layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" }'
    + "".join(BLOCK.format(n=n, x=f"c{n - 1}" if n else "norm") for n in range(8))
    + 'layer { name: "fc" type: "InnerProduct" bottom: "c7" top: "fc" '
    "inner_product_param { num_output: 20 } }"
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
)


LSTM = """
layer { name: "in" type: "Input" top: "x" top: "cont"
  input_param { shape { dim: [4, 2, 3] } shape { dim: [4, 2] } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
  recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Reduction" bottom: "h" top: "sum" loss_weight: 1 }
"""


def definition(batch: int = 0) -> caffe_pb2.NetParameter:
    return batched(parse(NET, caffe_pb2.NetParameter).message, "TRAIN", batch)


def measured(execution: Execution) -> int:
    """Peak of allocated bytes of building the net and one forward and backward pass."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        net = Net(definition(), "TRAIN", execution=execution)
        _, loss = net.run({name: torch.zeros(shape) for name, shape in net.inputs.items()})
        loss.backward()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.fixture(params=["kernels", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether compiled kernels compute, where there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(library, "suits", lambda *tensors, **options: False)
    return bool(request.param == "kernels")


@pytest.mark.parametrize(
    "execution",
    [
        Execution(),
        Execution(optimize=False),
        Execution(recompute=("AUTO",)),
        Execution(precision="BF16"),
    ],
    ids=["default", "literal", "recompute", "bf16"],
)
def test_within_a_tenth_of_the_measured(execution: Execution, kernels: bool) -> None:
    need = predict(definition(), "TRAIN", execution, slots=0, kernels=kernels)
    assert need.peak == pytest.approx(measured(execution), rel=0.1)


@needs_compiler
def test_kernels_keep_less() -> None:
    """One byte for a maximum, and nothing of what lies before it."""
    with_kernels, without = (
        predict(definition(), "TRAIN", Execution(), slots=0, kernels=each) for each in (True, False)
    )
    assert with_kernels.parameters == without.parameters
    assert with_kernels.peak < 0.85 * without.peak


def test_updates_in_backward_need_no_memory_for_all_gradients() -> None:
    usual, early = (predict(definition(), "TRAIN", Execution(), early=e) for e in (False, True))
    assert usual.peak - early.peak > 0.5 * usual.parameters


def test_a_forecast_leaves_no_trace() -> None:
    """Kernels compute after it as they did before, also what has been planned in it."""
    net = Net(definition(), "TRAIN")
    torch.manual_seed(0)
    batch = {name: torch.randn(shape).abs() for name, shape in net.inputs.items()}
    _, before = net.run(batch)
    predict(definition(), "TRAIN", Execution())
    _, after = net.run(batch)
    assert torch.equal(before, after)


def test_fusing_and_recomputing_need_less() -> None:
    literal, fused, recomputed = (
        predict(definition(), "TRAIN", each).peak
        for each in (Execution(optimize=False), Execution(), Execution(recompute=("AUTO",)))
    )
    assert recomputed < fused < literal


def test_history_counts_once_a_slot() -> None:
    one, two = (predict(definition(), "TRAIN", Execution(), slots) for slots in (1, 2))
    assert two.peak - one.peak == one.parameters


def test_inference_needs_less_than_training() -> None:
    training = predict(definition(), "TRAIN", Execution())
    message = batched(parse(NET, caffe_pb2.NetParameter).message, "TEST")
    assert predict(message, "TEST", Execution()).peak < training.peak / 2


def test_largest_batch_is_where_the_line_meets_the_limit() -> None:
    assert largest_batch([(10, 150), (20, 250)], 1050) == 100
    assert largest_batch([(10, 150), (20, 250)], 40) == 0


def test_an_lstm_is_predicted_though_its_steps_depend_on_data() -> None:
    message = parse(LSTM, caffe_pb2.NetParameter).message
    need = predict(batched(message, "TRAIN", 0), "TRAIN", Execution())
    assert need.peak > need.parameters > 0
