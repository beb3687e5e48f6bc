"""Losses and gradients that are not finite: the run stops, and what it leaves shows them again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cortado.proto.errors import NumericError
from cortado.proto.weights import read_weights
from cortado.solvers import Solver, diagnosis
from cortado.solvers.hooks import Hook
from cortado.solvers.hooks.finite import LARGE, Finite
from cortado.solvers.rules import rule_names
from cortado.solvers.scaling import LossScaler
from support.kernels import needs_compiler
from support.runs import Call, Recorder, small_solver, solver_document


def test_nan_stops_the_run_and_leaves_a_bundle(tmp_path: Path) -> None:
    with small_solver(tmp_path, "snapshot: 2 momentum: 0.9") as solver:
        weight = solver.net.layer("ip2").layer.blob(0)
        solver.hooks.append(Call(4, lambda: weight.data.fill_(3e38)))
        with pytest.raises(NumericError) as caught:
            solver.solve()
    message = str(caught.value)
    assert "iteration 4: loss is" in message
    assert "layer 'loss': its output 'loss' is not finite" in message
    assert sorted(path.name for path in tmp_path.glob("*.solverstate")) == [
        "run_iter_2.solverstate",
        "run_iter_4.solverstate",
    ]
    bundle = tmp_path / "run_not_finite_iter_4"
    assert diagnosis.read_message(bundle) in message
    again = diagnosis.replay(bundle)
    assert again.first == "layer 'loss': its output 'loss' is not finite"
    assert [row.layer for row in again.rows] == ["ip1", "drop", "act", "ip2", "loss"]
    assert [row.values.bad > 0 for row in again.rows] == [False, False, False, False, True]


def test_gradient_that_is_not_finite_is_found(tmp_path: Path) -> None:
    with small_solver(tmp_path) as solver:
        solver.hooks.insert(0, Poison())
        with pytest.raises(NumericError, match="iteration 2: loss is"):
            solver.solve()


class Poison(Hook):
    """Makes one gradient infinite in a pass of iteration 2, as an overflow in backward would."""

    def __init__(self, index: int = 0) -> None:
        self.index = index

    def after_pass(self, solver, made) -> bool:
        if (made.iteration, made.index) == (2, self.index):
            solver.updater.gradients()[0].view(-1)[0] = torch.inf
        return False


def test_replay_draws_the_same_dropout(tmp_path: Path) -> None:
    with small_solver(tmp_path) as solver:
        solver.hooks.insert(0, Poison())
        losses: list[float] = []
        solver.hooks.insert(0, LossRecorder(losses))
        with pytest.raises(NumericError, match="does not show when the batch is run again"):
            solver.solve()
    again = diagnosis.replay(tmp_path / "run_not_finite_iter_2")
    assert again.first == ""
    assert again.loss == pytest.approx(losses[-1], rel=1e-6)
    assert all(row.gradient is not None for row in again.rows)


class LossRecorder(Hook):
    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def after_backward(self, solver, iteration) -> None:
        self.losses.append(float(iteration.loss))


def test_pass_with_a_bad_loss_is_the_one_that_is_kept(tmp_path: Path) -> None:
    with small_solver(tmp_path, "iter_size: 4 max_iter: 1") as solver:
        batches = [solver.net.next_batch() for _ in range(4)]
        batches[1]["data"][0, 0] = torch.nan
        solver.net.next_batch = lambda: batches.pop(0)
        with pytest.raises(NumericError, match="input blob 'data' is not finite"):
            solver.solve()
    assert len(batches) == 2


def test_pass_with_a_bad_gradient_is_the_one_that_is_kept(tmp_path: Path) -> None:
    with small_solver(tmp_path, "iter_size: 3") as solver:
        solver.hooks.insert(0, Poison(1))
        batches: list[dict[str, torch.Tensor]] = []
        take = solver.net.next_batch
        solver.net.next_batch = lambda: batches.append(take()) or batches[-1]
        with pytest.raises(NumericError, match="iteration 2, pass 2 of 3: loss is"):
            solver.solve()
    kept = load_file(tmp_path / "run_not_finite_iter_2" / "batch.safetensors")
    assert len(batches) == 8
    assert torch.equal(kept["data"], batches[7]["data"])


@pytest.mark.parametrize("rule", rule_names())
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_weights_before_a_bad_step_are_there_even_where_the_answer_comes_later(
    rule: str, passes: int, device: str, tmp_path: Path
) -> None:
    """On a GPU an iteration does not wait for the answer about its own passes; here as there."""
    momentum = "" if rule in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    fields = f'type: "{rule}" {momentum} iter_size: {passes} weight_decay: 0.01 snapshot: 3'
    over_time: list[list[torch.Tensor]] = []
    with Solver(solver_document(tmp_path, fields), device=device) as solver:
        (at,) = [n for n, hook in enumerate(solver.hooks) if isinstance(hook, Finite)]
        solver.hooks[at] = Finite(deferred=True)
        solver.hooks = [Poison(passes - 1), Recorder(over_time), *solver.hooks]
        with pytest.raises(NumericError, match=r"iteration 2.*loss is"):
            solver.solve()
        found = [param.tensor for param in solver.net.params]
    assert len(over_time) == 3  # the bad step was made, and taken back
    assert all(map(torch.equal, found, over_time[1]))
    saved = {b.name: b for b in read_weights(tmp_path / "run_not_finite_iter_2/weights.caffemodel")}
    assert (saved["ip1"].blobs[0].data == over_time[1][0].cpu().numpy()).all()
    assert not list(tmp_path.glob("*.solverstate"))  # one was due after the bad step


WIDE = """
layer { name: "in" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 400 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 400 } }
layer { name: "sum" type: "Reduction" bottom: "y" top: "z" loss_weight: 1 }
"""


class Scaled(Hook):
    """Sends gradients of ``value`` into the last layer's output, in iteration 1 and after."""

    def __init__(self, value: float) -> None:
        self.value = value

    def before_step(self, solver) -> None:
        if solver.iteration == 1:
            solver.net.layer("ip").layer.register_forward_hook(self._scale)
            solver.net.literal = True

    def _scale(self, module, bottoms, top) -> None:
        top.register_hook(lambda gradient: torch.full_like(gradient, self.value))


@pytest.mark.parametrize("value", [1e36, float("inf")])
def test_large_gradients_that_are_looked_at_in_backward(value: float, tmp_path: Path) -> None:
    """Values whose sum overflows are no trouble unless one of them is infinite."""
    with small_solver(tmp_path, "base_lr: 1e-36", net=WIDE) as solver:
        assert solver.net.params[0].tensor.numel() > LARGE
        solver.hooks.append(Scaled(value))
        if value == 1e36:
            assert solver.solve().iteration == 8
        else:
            with pytest.raises(NumericError, match="iteration 1: loss is 0;"):
                solver.solve()
            assert solver.net.params[0].tensor.isfinite().all()


class Sums(Hook):
    """Notes what is known of large gradients when the passes of an iteration are looked at."""

    def __init__(self, finite: Finite) -> None:
        self.finite = finite
        self.found: list[list[float]] = []

    def after_pass(self, solver, made) -> bool:
        self.found.append(list(self.finite._sums.values()))
        return False


@needs_compiler
def test_factors_are_looked_at_in_place_of_their_product(tmp_path: Path) -> None:
    """Where a kernel makes the product, unless they are so large that it might overflow."""
    with small_solver(tmp_path, "base_lr: 1e-36 iter_size: 2", net=WIDE) as solver:
        finite = next(hook for hook in solver.hooks if isinstance(hook, Finite))
        sums = Sums(finite)
        solver.hooks.insert(0, sums)
        solver.step(1)
        assert sums.found == [[0.0], [0.0]]
        solver.hooks.append(Scaled(1e30))
        solver.step(1)
        assert len(sums.found[-1]) == 1
        assert sums.found[-1] != [0.0]
    assert solver.net.layer("ip").layer.taker is None


def test_check_finite_can_be_switched_off(tmp_path: Path) -> None:
    with small_solver(tmp_path, "check_finite: false") as solver:
        solver.hooks.insert(0, Poison())
        assert solver.solve().iteration == 8


class Overflow(Hook):
    """Makes a gradient infinite in every pass from iteration 4 on."""

    def after_pass(self, solver, made) -> bool:
        if made.iteration >= 4:
            solver.updater.gradients()[0].view(-1)[0] = torch.inf
        return False


def test_scaled_gradients_may_overflow_until_the_scale_is_used_up(tmp_path: Path) -> None:
    with small_solver(tmp_path, "max_iter: 40") as solver:
        solver.scaler = LossScaler(torch.device("cpu"), scale=4.0)
        solver.hooks.insert(0, Overflow())
        with pytest.raises(NumericError, match=r"iteration 6: gradients overflow.*scaled by 0\.5"):
            solver.solve()
        assert all(bool(param.tensor.isfinite().all()) for param in solver.net.params)
