"""What hooks add to a run: averaged weights, watching, signals, param rules."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from cortado.proto.errors import ConfigError
from cortado.proto.weights import read_weights
from cortado.solvers import events
from cortado.solvers.hooks import Hook
from cortado.solvers.hooks.averaging import Averaging
from support.runs import NET, Call, Recorder, everything, identical, small_solver

TESTED = "test_iter: 2 test_interval: 2 momentum: 0.9 "


def of_kind(seen: list[events.Event], kind: type) -> list:
    return [event for event in seen if isinstance(event, kind)]


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
    assert [line.partition(":")[0] for line in first] == [line.partition(":")[0] for line in second]
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


def test_debug_lines_of_splits_are_those_of_caffe(tmp_path: Path) -> None:
    """A blob with two readers; the names are those that Caffe prints for such a net."""
    net = (
        NET
        + """
      layer { name: "second" type: "EuclideanLoss" bottom: "o" bottom: "label" top: "other" }"""
    )
    seen: list[events.Event] = []
    text = "debug_info: true display: 4 max_iter: 1 snapshot_after_train: false"
    with small_solver(tmp_path, text, net=net, listeners=[seen.append]) as solver:
        solver.solve()
    lines = dict(event.text.rsplit(": ", 1) for event in of_kind(seen, events.DebugLine))
    value = lines["[Forward] Layer ip2, top blob o data"]
    assert lines["[Forward] Layer o_ip2_0_split, top blob o_ip2_0_split_1 data"] == value
    names = [name.removeprefix("[Backward] Layer ") for name in lines if "Backward" in name]
    assert names[:4] == [
        "second, bottom blob o_ip2_0_split_1 diff",
        "loss, bottom blob o_ip2_0_split_0 diff",
        "o_ip2_0_split, bottom blob o diff",
        "ip2, bottom blob h diff",
    ]
    one, _, both = (float(lines[f"[Backward] Layer {name}"]) for name in names[:3])
    assert both == pytest.approx(2 * one, rel=1e-4)  # the two losses are the same


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
