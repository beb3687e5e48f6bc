"""No iteration waits for its device, copies from or to it, or mixes devices: shown without a GPU.

Whole solvers train on fake tensors, which have shapes and a device but no values. Such tensors do
not show what a kernel computes, in which order streams run or when a copy is over; and the device
they are on has no autocast, so that passes in BF16 are run forward only, on CUDA's fake tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cortado.layers.base import TRAIN
from cortado.layers.data.transform import Transform, Window
from cortado.netdef import Net
from cortado.netdef.execution import Execution
from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.positions import Document
from cortado.proto.text import parse
from cortado.solvers import Solver
from cortado.solvers.hooks import Hook
from cortado.solvers.hooks.finite import Finite
from cortado.solvers.rules import rule_names
from cortado.solvers.scaling import LossScaler
from cortado.tools.benchmarks import nets
from cortado.tools.benchmarks.contenders import Fixed
from support.fake_device import DEVICE, WAITED, Answers, LateCopies, NoCopies

CONV = 'weight_filler { type: "msra" }'
#: What the graph passes rewrite, a shared and a frozen layer, one that gets no gradient, and random
#: numbers of the device.
NET = f"""
layer {{ name: "in" type: "DummyData" top: "data" top: "label" dummy_data_param {{
  shape {{ dim: 4 dim: 3 dim: 12 dim: 12 }} shape {{ dim: 4 }} data_filler {{ value: 1 }} }} }}
layer {{ name: "frozen" type: "Convolution" bottom: "data" top: "f"
  param {{ lr_mult: 0 decay_mult: 0 }} param {{ lr_mult: 0 decay_mult: 0 }}
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {CONV} }} }}
layer {{ name: "c1" type: "Convolution" bottom: "f" top: "c1" convolution_param {{
  num_output: 8 kernel_size: 3 pad: 1 group: 2 bias_term: false {CONV} }} }}
layer {{ name: "bn1" type: "BatchNorm" bottom: "c1" top: "c1" }}
layer {{ name: "s1" type: "Scale" bottom: "c1" top: "c1" scale_param {{ bias_term: true }} }}
layer {{ name: "r1" type: "ReLU" bottom: "c1" top: "c1" }}
layer {{ name: "sum" type: "Eltwise" bottom: "c1" bottom: "f" top: "sum" }}
layer {{ name: "r2" type: "ReLU" bottom: "sum" top: "sum" }}
layer {{ name: "lrn" type: "LRN" bottom: "sum" top: "lrn" }}
layer {{ name: "pool" type: "Pooling" bottom: "lrn" top: "pool" pooling_param {{
  kernel_size: 3 stride: 2 }} }}
layer {{ name: "ave" type: "Pooling" bottom: "lrn" top: "ave" pooling_param {{
  pool: AVE kernel_size: 3 stride: 2 }} }}
layer {{ name: "cat" type: "Concat" bottom: "pool" bottom: "ave" top: "cat" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "cat" top: "ip" inner_product_param {{
  num_output: 6 {CONV} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "ip" top: "ip" }}
layer {{ name: "one" type: "InnerProduct" bottom: "ip" top: "one" param {{ name: "w" }}
  inner_product_param {{ num_output: 6 {CONV} }} }}
layer {{ name: "two" type: "InnerProduct" bottom: "one" top: "two" param {{ name: "w" }}
  inner_product_param {{ num_output: 6 {CONV} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "two" bottom: "label" top: "accuracy" }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "two" bottom: "label" top: "loss" }}
"""
COMMON = 'lr_policy: "multistep" base_lr: 0.1 gamma: 0.5 stepvalue: 3 max_iter: 100 random_seed: 1'
#: Nothing is displayed, tested or saved within the iterations that are looked at.
QUIET = "display: 100 snapshot_after_train: false"


def momentum(rule: str) -> str:
    return "" if rule in ("AdaGrad", "RMSProp") else "momentum: 0.9"


@contextmanager
def trained(text: str, net: str = NET) -> Iterator[tuple[Solver, FakeTensorMode]]:
    """A solver on the fake device after its first iterations, in which caches are filled."""
    message = parse(f"{COMMON} {text} net_param {{ {net} }}", SolverParameter)
    with FakeTensorMode() as mode:
        with Answers(0):
            solver = Solver(message, device=DEVICE)
        warm_up(solver)
        yield solver, mode


def warm_up(solver: Solver) -> None:
    with Answers(1):
        solver.step(2)
        for hook in solver.hooks:  # what was still to be read of these iterations
            hook.before_snapshot(solver)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("rule", rule_names())
@pytest.mark.parametrize("layout", ["CONTIGUOUS", "CHANNELS_LAST"])
def test_no_rule_waits(rule: str, layout: str) -> None:
    text = f'type: "{rule}" {momentum(rule)} weight_decay: 0.01 memory_format: {layout} {QUIET}'
    with trained(text) as (solver, _), LateCopies() as watch:
        solver.step(3)
    assert watch.read == 2  # the passes' own check, each an iteration later


SETTINGS = [
    "clip_gradients: 1",
    "clip_layer_gradients: 1",
    "iter_size: 2 clip_gradients: 1 weight_decay: 0.01",
    'iter_size: 2 clip_layer_gradients: 1 weight_decay: 0.01 regularization_type: "L1"',
    "gradient_noise: 0.1 iter_size: 2",
    "ema_decay: 0.99 average_loss: 5",
    'recompute: "AUTO"',
    'recompute: "c1" recompute: "[bsr]*1"',
    "snapshot_diff: true",
    "check_finite: false",
    "check_finite: false update_in_backward: true",
    "debug_info: true",
]


@pytest.mark.parametrize("rule", ["SGD", "Adam", "NAdam"])
@pytest.mark.parametrize("text", SETTINGS)
def test_no_setting_of_the_solver_waits(
    text: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Recomputation asks the device's module whether there are random numbers to draw again.
    monkeypatch.setattr(torch, DEVICE, SimpleNamespace(_initialized=False), raising=False)
    text = f'type: "{rule}" momentum: 0.9 {text} {QUIET}'
    passes = 2 if "iter_size" in text else 1
    with trained(text) as (solver, _), LateCopies() as watch:
        solver.step(3)
    assert watch.read == (0 if "check_finite" in text else 3 * passes - 1)


def test_scaled_losses_wait_once_an_iteration() -> None:
    with trained(f"iter_size: 2 {QUIET}") as (solver, _):
        solver.scaler = LossScaler(torch.device(DEVICE))
        warm_up(solver)
        with Answers(0) as answers:  # which stands for no overflow, and for a finite loss
            solver.hooks = [hook for hook in solver.hooks if not isinstance(hook, Finite)]
            solver.step(3)
    assert answers.asked == 3


@pytest.mark.parametrize(
    "name", ["lenet", "bvlc_googlenet", "resnet18", "mobilenet_v3_small", "squeezenet1_1"]
)
def test_no_net_of_the_zoo_waits(name: str) -> None:
    fields = f"{COMMON} momentum: 0.9 weight_decay: 0.01 {QUIET}"
    parameters = parse(fields, SolverParameter).message
    parameters.net_param.CopyFrom(nets.definition(name, 2))
    with FakeTensorMode():
        with Answers(0):
            solver = Solver(Document(parameters), device=DEVICE)
            batch = nets.fixed_batch(solver.net)
            for step in solver.net.sources:
                step.source = Fixed(tuple(batch[top].to(DEVICE) for top in step.tops))
        warm_up(solver)
        with LateCopies():
            solver.step(2)


class Waits(Hook):
    """Waits for the device in each of the ways that there are."""

    def __init__(self, way: str) -> None:
        self.way = way

    def after_backward(self, solver, iteration) -> None:
        gradient = solver.updater.gradients()[-1]
        match self.way:
            case "number":
                iteration.rate = float(iteration.loss)
            case "condition":
                iteration.usable = bool(gradient.isfinite().all())
            case "host":
                gradient.copy_(gradient.cpu())
            case "mixed":
                gradient.add_(torch.ones(gradient.shape))
            case "list":
                torch._foreach_copy_([gradient], [torch.ones(gradient.shape)])
            case "history":
                solver.updater.history[0][0] = torch.zeros(solver.updater.history[0][0].shape)
                solver.updater.regroup()
            case _:
                target = solver.net.layer("c1").layer.blob(0)
                target.grad = target.grad.transpose(2, 3)
                solver.updater._group_gradients = lambda group: [
                    solver.updater._sources[index].grad for index in group.indices
                ]


WAYS = ["number", "condition", "host", "mixed", "list", "history", "layout"]


@pytest.mark.parametrize("way", WAYS)
def test_the_check_finds_every_way_of_waiting(way: str) -> None:
    net = NET.replace("lr_mult: 0 decay_mult: 0", "lr_mult: 1")  # what is frozen has no gradient
    with trained(f"momentum: 0.9 {QUIET}", net) as (solver, _):
        solver.hooks.append(Waits(way))
        with LateCopies(), pytest.raises(WAITED):
            solver.step(1)


def test_display_waits_where_it_is_due() -> None:
    """The boundary itself is seen by the check; the iterations before it pass."""
    with trained("display: 4 momentum: 0.9") as (solver, _), LateCopies():
        solver.step(2)
        with pytest.raises(WAITED):
            solver.step(1)


TRANSFORMS = {
    "values": {"mean_values": [104.0, 117.0, 123.0]},
    "one value": {"mean_values": [110.0], "scale": 0.5},
    "scales": {"mean_values": [110.0], "scale": [0.5, 0.25, 1.0]},
    "nothing": {},
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_bytes_become_images_on_the_device(name: str) -> None:
    transform = Transform(TRAIN, crop_size=6, mirror=True, **TRANSFORMS[name])  # type: ignore[arg-type]
    windows = [Window(1, 2, bool(number % 2)) for number in range(4)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        pixels = torch.empty((4, 3, 6, 6), dtype=torch.uint8, device=DEVICE)
        transform.finish(pixels, windows)  # means and scales are sent once
        with NoCopies():
            batch = transform.finish(pixels, windows)
    assert (batch.dtype, batch.device.type) == (torch.float32, DEVICE)


def test_a_mean_image_takes_the_places_of_windows_to_the_device() -> None:
    mean = np.ones((3, 9, 9), np.float32)
    transform = Transform(TRAIN, crop_size=6, mirror=True, mean_image=mean)
    windows = [Window(1, 2, bool(number % 2)) for number in range(4)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        pixels = torch.empty((4, 3, 6, 6), dtype=torch.uint8, device=DEVICE)
        transform.finish(pixels, windows)
        with pytest.raises(WAITED), NoCopies():
            transform.finish(pixels, windows)


@pytest.mark.parametrize("name", ["lenet", "bvlc_googlenet", "resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize("precision", ["BF16", "FP16"])
@pytest.mark.parametrize("training", [True, False])
def test_passes_in_16_bits_agree_on_types_under_autocast_of_cuda(
    name: str, precision: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward only: autograd's engine asks CUDA for its device."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    definition, phase = nets.definition(name, 2, training), "TRAIN" if training else "TEST"
    with FakeTensorMode(), torch.set_grad_enabled(training):
        with Answers(0):
            execution = Execution(precision=precision)
            net = Net(definition, phase, device="cuda", execution=execution, check_memory=False)
            batch = {k: v.to("cuda") for k, v in nets.fixed_batch(net).items()}
            if not training:
                net.fold()
        with NoCopies():
            outputs, loss = net.run(batch)
    assert loss.dtype == torch.float32
    assert all(output.dtype == torch.float32 for output in outputs.values())
