"""What hooks add to a run: averaged weights, watching, numeric trouble, signals, param rules."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cortado.proto.errors import ConfigError, NumericError
from cortado.proto.weights import read_weights
from cortado.solvers import diagnosis, events
from cortado.solvers.hooks import Hook
from cortado.solvers.hooks.averaging import Averaging
from cortado.solvers.hooks.finite import LARGE, Finite
from cortado.solvers.rules import rule_names
from support.runs import NET, everything, identical, small_solver

TESTED = "test_iter: 2 test_interval: 2 momentum: 0.9 "


def of_kind(seen: list[events.Event], kind: type) -> list:
    return [event for event in seen if isinstance(event, kind)]


class Call(Hook):
    """Does something after the update that completes an iteration."""

    def __init__(self, at: int, work) -> None:
        self.at, self.work = at, work

    def after_update(self, solver, iteration) -> None:
        if solver.iteration == self.at:
            self.work()


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_averaged_weights_are_tested_saved_and_resumed(form: str, tmp_path: Path) -> None:
    seen: list[events.Event] = []
    fields = f"{TESTED} ema_decay: 0.9 snapshot: 4 snapshot_format: {form}"
    ending = ".h5" if form == "HDF5" else ""
    with small_solver(tmp_path, fields, listeners=[seen.append]) as solver:
        (hook,) = [hook for hook in solver.hooks if isinstance(hook, Averaging)]
        expected = [param.tensor.detach().clone() for param in solver.net.params]
        weights_over_time: list[list[torch.Tensor]] = []
        solver.hooks.append(Recorder(weights_over_time))
        solver.solve()
        for weights in weights_over_time:
            expected = [0.9 * e + 0.1 * w for e, w in zip(expected, weights, strict=True)]
        for found, wanted in zip(hook.average, expected, strict=True):
            torch.testing.assert_close(found, wanted)
    tests = of_kind(seen, events.TestFinished)
    assert [test.weights for test in tests] == ["", "ema"] * 5
    saved = {b.name: b for b in read_weights(tmp_path / f"run_ema_iter_8.caffemodel{ending}")}
    assert (saved["ip1"].blobs[0].data == hook.average[0].numpy()).all()
    with small_solver(tmp_path, fields) as again:
        again.solve(tmp_path / f"run_iter_4.solverstate{ending}")
        (resumed,) = [each for each in again.hooks if isinstance(each, Averaging)]
        assert identical(resumed.average, hook.average)


class Recorder(Hook):
    def __init__(self, weights: list[list[torch.Tensor]]) -> None:
        self.weights = weights

    def after_update(self, solver, iteration) -> None:
        self.weights.append([param.tensor.detach().clone() for param in solver.net.params])


class Values(Hook):
    """Puts made-up values in the place of what a test found."""

    def __init__(self, values: list[float]) -> None:
        self.values = list(values)

    def after_test(self, solver, index, outputs) -> None:
        outputs["loss"] = self.values.pop(0)


def watching(folder: Path, text: str, values: list[float], **arguments):
    solver = small_solver(folder, f'{TESTED} watch: "loss" max_iter: 20 {text}', **arguments)
    solver.hooks.insert(0, Values(values))
    return solver


def test_early_stopping(tmp_path: Path) -> None:
    values = [3.0, 2.0, 2.1, float("nan"), 2.5, 1.0]
    with watching(tmp_path, "early_stop_patience: 3", values) as solver:
        outcome = solver.solve()
    assert outcome.iteration == 8  # tests at 0, 2, 4, 6, 8; the best was the one at 2
    assert "early stopping: 3 tests without improvement over loss = 2" in str(outcome.stopped_by)


def test_plateau_drops_the_rate(tmp_path: Path) -> None:
    values = [3.0, 2.0, 2.1, 2.2, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    text = 'lr_policy: "plateau" gamma: 0.5 plateau_patience: 2 min_lr: 0.01 display: 2'
    seen: list[events.Event] = []
    with watching(tmp_path, text, values, listeners=[seen.append]) as solver:
        solver.solve()
    rates = [round(event.rate, 6) for event in of_kind(seen, events.RateDisplayed)]
    assert rates == [0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125, 0.01, 0.01]


def test_keeps_the_best_snapshots(tmp_path: Path) -> None:
    values = [3.0, 2.0, 5.0, 1.0, 4.0, 2.5, 6.0, 7.0, 8.0, 9.0, 10.0]
    with watching(tmp_path, "keep_best: 2", values) as solver:
        solver.solve()
    names = sorted(path.name for path in tmp_path.glob("run_best*"))
    kinds = ("caffemodel", "solverstate")
    assert names == [f"run_best_iter_{n}.{kind}" for n in (2, 6) for kind in kinds]


def test_watching_an_unknown_output_is_refused(tmp_path: Path) -> None:
    with (
        small_solver(tmp_path, f'{TESTED} watch: "los"') as solver,
        pytest.raises(ConfigError, match="did you mean 'loss'"),
    ):
        solver.solve()


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
def test_weights_before_a_bad_step_are_there_even_where_the_answer_comes_later(
    rule: str, passes: int, tmp_path: Path
) -> None:
    """As on a GPU, where an iteration does not wait for the answer about its own passes."""
    momentum = "" if rule in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    fields = f'type: "{rule}" {momentum} iter_size: {passes} weight_decay: 0.01 snapshot: 3'
    over_time: list[list[torch.Tensor]] = []
    with small_solver(tmp_path, fields) as solver:
        (at,) = [n for n, hook in enumerate(solver.hooks) if isinstance(hook, Finite)]
        solver.hooks[at] = Finite(deferred=True)
        solver.hooks = [Poison(passes - 1), Recorder(over_time), *solver.hooks]
        with pytest.raises(NumericError, match="iteration 2.*loss is"):
            solver.solve()
        found = [param.tensor for param in solver.net.params]
    assert len(over_time) == 3  # the bad step was made, and taken back
    assert all(map(torch.equal, found, over_time[1]))
    saved = {b.name: b for b in read_weights(tmp_path / "run_not_finite_iter_2/weights.caffemodel")}
    assert (saved["ip1"].blobs[0].data == over_time[1][0].numpy()).all()
    assert not list(tmp_path.glob("*.solverstate"))  # one was due after the bad step


WIDE = """
layer { name: "in" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 300 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 300 } }
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


def test_check_finite_can_be_switched_off(tmp_path: Path) -> None:
    with small_solver(tmp_path, "check_finite: false") as solver:
        solver.hooks.insert(0, Poison())
        assert solver.solve().iteration == 8


@pytest.mark.parametrize("pattern", ["ip1", "ip1*", "ip[1]", "i.1"])
def test_param_rule_freezes_layers(pattern: str, tmp_path: Path) -> None:
    rule = f'param_rule {{ pattern: "{pattern}" lr_mult: 0 }} weight_decay: 0.1'
    with small_solver(tmp_path, rule) as solver:
        before = everything(solver)
        solver.step(2)
        assert solver.net.params[0].tensor.grad is None
        assert identical(everything(solver)[:2], before[:2])
        assert not torch.equal(everything(solver)[2], before[2])


@pytest.mark.parametrize(
    ("number", "effect", "stopped", "snapshots"),
    [
        (signal.SIGINT, "stop", "SIGINT", [3]),
        (signal.SIGINT, "snapshot", None, [3, 8]),
        (signal.SIGHUP, "snapshot", None, [3, 8]),
        (signal.SIGHUP, "stop", "SIGHUP", [3]),
        (signal.SIGTERM, "", "SIGTERM", [3]),
    ],
)
def test_signals(number: int, effect: str, stopped: str | None, snapshots: list, tmp_path) -> None:
    names = {signal.SIGINT: "sigint", signal.SIGHUP: "sighup"}
    effects = {names[number]: effect} if effect else {}
    before = signal.getsignal(number)
    with small_solver(tmp_path, **effects) as solver:
        solver.hooks.insert(0, Call(3, lambda: os.kill(os.getpid(), number)))
        outcome = solver.solve()
    assert outcome.stopped_by == stopped
    assert outcome.signal == (number if stopped else None)
    found = sorted(int(path.stem.rsplit("_", 1)[1]) for path in tmp_path.glob("*.solverstate"))
    assert found == snapshots
    assert signal.getsignal(number) == before


def test_second_sigint_ends_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with small_solver(tmp_path) as solver:
        solver.hooks.insert(0, Call(3, twice))
        with pytest.raises(KeyboardInterrupt):
            solver.solve()


def test_stop_during_a_test_interrupts_it(tmp_path: Path) -> None:
    seen: list[events.Event] = []

    def interrupt(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.TestProgress) and event.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with small_solver(tmp_path, TESTED, listeners=[interrupt]) as solver:
        assert solver.solve().iteration == 2
    assert [event.iteration for event in of_kind(seen, events.TestInterrupted)] == [2]
    assert of_kind(seen, events.TrainingStopped)


def test_debug_lines_in_display_iterations(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    text = "debug_info: true display: 4 snapshot_after_train: false iter_size: 2"
    with small_solver(tmp_path, text, listeners=[seen.append]) as solver:
        weight = float(solver.net.params[0].tensor.detach().abs().mean())
        solver.solve()
    lines = [event.text for event in of_kind(seen, events.DebugLine)]
    assert len(lines) == 4 * (len(lines) // 4)  # two iterations of two passes
    first, second = lines[: len(lines) // 4], lines[len(lines) // 4 : len(lines) // 2]
    assert [line.partition(":")[0] for line in first] == [
        line.partition(":")[0] for line in second
    ]
    assert first[0].startswith("[Forward] Layer in, top blob data data: ")
    assert first[1].startswith("[Forward] Layer in, top blob label data: ")
    assert first[2].startswith("[Forward] Layer ip1, top blob h data: ")
    assert first[3] == f"[Forward] Layer ip1, param blob 0 data: {weight:g}"
    kinds = [line.rpartition(":")[0] for line in first if line.startswith("[Backward]")]
    assert kinds[:4] == [
        "[Backward] Layer loss, bottom blob o diff",
        "[Backward] Layer ip2, bottom blob h diff",
        "[Backward] Layer ip2, param blob 0 diff",
        "[Backward] Layer ip2, param blob 1 diff",
    ]
    assert first[-1].startswith("[Backward] All net params (data, diff): L1 norm = (")
    assert identical_with_and_without_debugging(tmp_path, text)


def identical_with_and_without_debugging(folder: Path, text: str) -> bool:
    results = []
    for fields in (text, text.replace("true", "false", 1)):
        with small_solver(folder, fields) as solver:
            solver.solve()
            results.append(everything(solver))
    return identical(*results)


def test_net_stays_usable_after_a_run(tmp_path: Path) -> None:
    with small_solver(tmp_path) as solver:
        solver.solve()
        solver.step(2)
        assert solver.iteration == 10
    assert "small" in NET
