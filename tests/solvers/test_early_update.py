"""Updates in backward make the same run, without the memory for all gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cortado.layers.inner_product import InnerProduct
from cortado.layers.native import library
from cortado.proto.errors import ConfigError, NumericError
from cortado.solvers import Solver
from cortado.solvers.early_update import EarlyUpdater, updater_for
from cortado.solvers.hooks import Hook
from cortado.solvers.rules import rule_names
from cortado.solvers.scaling import LossScaler
from support.kernels import needs_compiler
from support.runs import everything, identical, small_solver

#: A product with weights that are large enough for parts, two layers that share theirs, one that is
#: frozen, one that no gradient reaches, and normalisation.
NET = """
name: "several"
layer { name: "in" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 16 dim: 16 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "large" type: "InnerProduct" bottom: "conv" top: "large"
  inner_product_param { num_output: 1100 weight_filler { type: "xavier" } } }
layer { name: "frozen" type: "InnerProduct" bottom: "large" top: "mid" param { lr_mult: 0 }
  param { lr_mult: 0 } inner_product_param { num_output: 64 weight_filler { type: "xavier" } } }
layer { name: "a" type: "InnerProduct" bottom: "mid" top: "a" param { name: "w" }
  param { name: "b" } inner_product_param { num_output: 64 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  param { name: "b" } inner_product_param { num_output: 64 weight_filler { type: "xavier" } } }
layer { name: "unused" type: "InnerProduct" bottom: "mid" top: "unused"
  loss_weight: 0 inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss" }
"""
EARLY = "update_in_backward: true"


def trained(folder: Path, text: str, steps: int = 4) -> list[Tensor]:
    with small_solver(folder, text, NET) as solver:
        solver.step(steps)
        return everything(solver)


@pytest.mark.parametrize("rule", rule_names())
@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_the_run_is_the_same(rule: str, precision: str, tmp_path: Path) -> None:
    momentum = "" if rule in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    text = f'type: "{rule}" base_lr: 0.001 weight_decay: 0.01 {momentum} precision: {precision}'
    usual, early = trained(tmp_path, text), trained(tmp_path, f"{text} {EARLY}")
    for one, other in zip(early, usual, strict=True):
        # What a rule divides by may be next to nothing, so that rounding shows.
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    "more", ['regularization_type: "L1"', "clip_layer_gradients: 0.01", "ema_decay: 0.9"]
)
def test_what_else_belongs_to_an_update(more: str, tmp_path: Path) -> None:
    text = f"momentum: 0.9 weight_decay: 0.01 {more}"
    usual, early = trained(tmp_path, text), trained(tmp_path, f"{text} {EARLY}")
    for one, other in zip(early, usual, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


class Watcher(Hook):
    """Notes the gradients there are after backward."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def after_backward(self, solver, iteration) -> None:
        self.found.append(len(solver.updater.gradients()))


def test_no_gradient_is_left(tmp_path: Path) -> None:
    with small_solver(tmp_path, EARLY, NET) as solver:
        watcher = Watcher()
        solver.hooks.append(watcher)
        solver.step(3)
    assert watcher.found == [0, 0, 0]


def takers(solver: Solver) -> set[str]:
    layers = {step.name: step.layer for step in solver.net.steps}
    return {
        name
        for name, layer in layers.items()
        if isinstance(layer, InnerProduct) and layer.taker is not None
    }


def test_only_products_with_weights_of_their_own_are_taken_in_parts(tmp_path: Path) -> None:
    with small_solver(tmp_path, EARLY, NET) as solver:
        assert takers(solver) == {"large", "frozen", "unused"}
    with small_solver(tmp_path, f'{EARLY} type: "LARS"', NET) as solver:
        assert takers(solver) == set()


@needs_compiler
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])
def test_parts_are_taken_where_a_kernel_makes_the_product(
    kernels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(library, "suits", lambda *tensors, **options: False)
    taken: list[str] = []
    take = EarlyUpdater._take_product

    def noted(self: EarlyUpdater, index: int, grad: Tensor, rows: Tensor) -> bool:
        taken.append(self.params[index].name)
        return take(self, index, grad, rows)

    monkeypatch.setattr(EarlyUpdater, "_take_product", noted)
    with small_solver(tmp_path, EARLY, NET) as solver:
        weight = next(p.tensor for p in solver.net.params if p.name == "large.weight")
        before = weight.detach().clone()
        solver.step(1)
        assert (weight != before).float().mean() > 0.9
    assert taken == (["large.weight"] if kernels else [])


def test_a_snapshot_goes_on_with_or_without(tmp_path: Path) -> None:
    text = "momentum: 0.9 snapshot: 2 snapshot_after_train: false"
    with small_solver(tmp_path, f"{text} {EARLY}", NET) as solver:
        solver.step(4)
        expected = everything(solver)
    for more in ("", EARLY):
        with small_solver(tmp_path, f"{text} {more}", NET) as solver:
            solver.restore(tmp_path / "run_iter_2.solverstate")
            solver.step(2)
            for one, other in zip(everything(solver), expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
            if more == EARLY:
                assert identical(everything(solver), expected)


class Spoiled(Hook):
    """Makes the gradient for one layer's top infinite, in iteration 1."""

    def before_step(self, solver) -> None:
        if solver.iteration == 1:
            layer = next(step.layer for step in solver.net.steps if step.name == "scale")
            layer.register_forward_hook(self._spoil)

    def _spoil(self, module, bottoms, top) -> None:
        if top.requires_grad:
            top.register_hook(lambda gradient: gradient * torch.inf)


def test_nothing_is_updated_from_a_bad_gradient_on(tmp_path: Path) -> None:
    """Layers after it were updated before it was known."""
    text = f"{EARLY} precision: FP32"
    with small_solver(tmp_path, text, NET) as solver:
        solver.step(1)
        before = {p.name: p.tensor.detach().clone() for p in solver.net.params}
        solver.hooks.insert(0, Spoiled())
        solver.net.literal = True
        with pytest.raises(NumericError, match="iteration 1"):
            solver.step(1)
        now = {p.name: p.tensor.detach() for p in solver.net.params}
    for name in ("conv.weight", "conv.bias", "scale.weight"):
        assert torch.equal(now[name], before[name])
    assert all(tensor.isfinite().all() for tensor in now.values())


@pytest.mark.parametrize(
    "field", ["iter_size: 2", "clip_gradients: 1", "debug_info: true", "snapshot_diff: true"]
)
def test_what_needs_all_gradients_is_refused(field: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=field.partition(":")[0]):
        small_solver(tmp_path, f"{EARLY} {field}", NET)


def test_a_scaled_loss_is_refused(tmp_path: Path) -> None:
    with small_solver(tmp_path, EARLY, NET) as solver:
        scaler = LossScaler(torch.device("cpu"))
        with pytest.raises(ConfigError, match="FP16"):
            updater_for(solver.net, solver.parameters, scaler)
