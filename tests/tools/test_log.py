"""Log lines: what events are written as, and that the parsers in use read a real run's log."""

from __future__ import annotations

import json
import logging
import math
import os
import re

import pytest

from cortado.proto.errors import ResourceError
from cortado.solvers import events
from cortado.solvers.events import Output
from cortado.tools import cli
from cortado.tools.output.glog import logging_to
from cortado.tools.output.json_lines import encode
from cortado.tools.output.log import lines, number

FLOAT = r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?"

# What DIGITS and Caffe's parse_log.py look for (as facts, in own words).
DIGITS_PREFIX = re.compile(r"(\w)(\d{4} \S{8}).*]\s+(\S.*)$")
DIGITS_OUTPUT = re.compile(rf"(Train|Test) net output #(\d+): (\S*) = (NaN|{FLOAT})", re.IGNORECASE)
DIGITS_RATE = re.compile(rf"Iteration (\d+).*lr = ({FLOAT})", re.IGNORECASE)
DIGITS_SNAPSHOT = re.compile(r"Snapshotting to (.*)\s*$")
PARSE_LOG_ITERATION = re.compile(r"Iteration (\d+)")
PARSE_LOG_TRAIN = re.compile(r"Train net output #(\d+): (\S+) = ([\.\deE+-]+)")
PARSE_LOG_TEST = re.compile(r"Test net output #(\d+): (\S+) = ([\.\deE+-]+)")
PARSE_LOG_RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)")

LOSS = (Output("loss", 0.25, 2.0), Output("accuracy", 0.5))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000279304, "0.000279304"),
        (3.57628e-08, "3.57628e-08"),
        (1.7291234, "1.72912"),
        (2.0, "2"),
        (1234567.0, "1.23457e+06"),
        (math.nan, "nan"),
        (-math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_printed_as_by_a_cpp_stream(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (events.TrainingStarted("n", "step", 0, 9), ["Solving n", "Learning Rate Policy: step"]),
        (events.TestStarted(5, 1), ["Iteration 5, Testing net (#1)"]),
        (
            events.TestFinished(5, 0, LOSS, loss=0.5),
            [
                "Test loss: 0.5",
                "    Test net output #0: loss = 0.25 (* 2 = 0.5 loss)",
                "    Test net output #1: accuracy = 0.5",
            ],
        ),
        (
            events.Displayed(20, 4.0, 5.0, 20, 0.125, LOSS[:1]),
            [
                "Iteration 20 (4 iter/s, 5s/20 iters), loss = 0.125",
                "    Train net output #0: loss = 0.25 (* 2 = 0.5 loss)",
            ],
        ),
        (events.RateDisplayed(20, 0.01), ["Iteration 20, lr = 0.01"]),
        (events.StepAdvanced(20, 3), ["MultiStep Status: Iteration 20, step = 3"]),
        (
            events.GradientsClipped(1, 10.0, 5.0, 0.5),
            ["Gradient clipping: scaling down gradients (L2 norm 10 > 5) by scale factor 0.5"],
        ),
        (
            events.SnapshotStarted(1, "a.caffemodel", False),
            ["Snapshotting to binary proto file a.caffemodel"],
        ),
        (
            events.StateSnapshotStarted(1, "a.solverstate.h5", True),
            ["Snapshotting solver state to HDF5 file a.solverstate.h5"],
        ),
        (
            events.WeightsLoaded("w", None, ("a", "b")),
            ["Finetuning from w", "Ignoring source layer a", "Ignoring source layer b"],
        ),
        (events.FinalLoss(9, 0.5), ["Iteration 9, loss = 0.5"]),
        (
            events.TrainingStopped(9, "SIGINT"),
            ["Stopped at iteration 9 by SIGINT", "Optimization stopped early."],
        ),
        (events.TrainingFinished(9), ["Optimization Done."]),
        (events.IterationDone(9), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_events_as_lines(event, expected):
    assert [message for _, message in lines(event)] == expected


def test_no_line_but_caffes_own_says_what_parsers_look_for():
    """A notice or averaged weights must not be taken for an iteration's loss or test."""
    others = (
        events.TestStarted(5, 0, weights="ema"),
        events.TestFinished(5, 0, LOSS, weights="ema"),
        events.SnapshotFailed(5, "p", "disk full"),
    )
    for event in others:
        for _, message in lines(event):
            assert not re.search(r"Iteration \d+|, loss = |, lr = |Test net output", message)


def test_a_real_log_reads_as_caffes(folder, capsys):
    assert cli.main(["train", "--solver=solver.prototxt"]) == 0
    log = capsys.readouterr().err.splitlines()
    messages = []
    for line in log:
        assert len(line.split("]")[0].split()) == 4, line
        found = DIGITS_PREFIX.match(line)
        assert found, line
        messages.append(found[3])
    started = next(i for i, message in enumerate(messages) if "Solving" in message)
    assert not any(PARSE_LOG_ITERATION.search(message) for message in messages[:started])
    outputs = [found for message in messages if (found := DIGITS_OUTPUT.match(message))]
    assert [found[1] for found in outputs].count("Train") == 4
    tests = [found for message in messages if (found := PARSE_LOG_TEST.search(message))]
    assert [found[2] for found in tests] == ["accuracy", "loss"] * 3
    assert len([m for m in messages if PARSE_LOG_TRAIN.search(m)]) == 4
    rates = [found for message in messages if (found := PARSE_LOG_RATE.search(message))]
    assert [found[1] for found in rates] == ["0.01"] * 4
    assert [f[1] for m in messages if (f := DIGITS_RATE.match(m))] == ["0", "2", "4", "6"]
    for index, message in enumerate(messages):
        if DIGITS_SNAPSHOT.match(message):
            assert messages[index + 1].startswith("Snapshotting solver state")
    assert messages[-2:] == ["Optimization Done."] * 2


def test_the_fixed_fields_that_parse_log_sh_cuts_out(folder, capsys):
    cli.main(["train", "--solver=solver.prototxt"])
    log = capsys.readouterr().err.splitlines()
    test = next(line for line in log if "Test net output #0" in line)
    assert float(test.split()[10]) <= 1
    assert float(next(line for line in log if ", lr = " in line).split()[8]) == 0.01


def test_log_file_and_glog_environment(folder, monkeypatch):
    logs = folder / "logs"
    logs.mkdir()
    monkeypatch.setenv("GLOG_log_dir", str(logs))
    monkeypatch.setenv("GLOG_minloglevel", "1")
    with logging_to(str(folder / "own.log")):
        logging.getLogger("cortado.tools.train").info("left out")
        logging.getLogger("cortado.tools.train").warning("100%% sure: %d", 5)
    own = (folder / "own.log").read_text()
    assert own == (logs / "caffe.INFO").read_text()
    assert re.fullmatch(
        rf"W\d{{4}} \d\d:\d\d:\d\d\.\d{{6}} +{os.getpid()} test_log.py:\d+\] 100% sure: 5\n", own
    )
    assert re.match(
        r"caffe\..+\..+\.log\.INFO\.\d{8}-\d{6}\.\d+$", os.readlink(logs / "caffe.INFO")
    )


def test_a_log_file_that_cannot_be_opened(folder):
    with (
        pytest.raises(ResourceError, match="No such file or directory"),
        logging_to(str(folder / "no" / "own.log")),
    ):
        pass


def test_json_gives_every_event_on_standard_output(folder, capsys):
    assert cli.main(["train", "--solver=solver.prototxt", "--json", "--quiet"]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    found = [json.loads(line) for line in out.out.splitlines()]
    names = [each["event"] for each in found]
    assert names[:2] == ["NetCreated", "NetBuilt"]
    assert names[-1] == "TrainingFinished"
    assert names.count("IterationDone") == 8
    built = found[1]["net"]
    assert [layer["name"] for layer in built["layers"]] == ["data", "conv", "relu", "score", "loss"]
    shown = next(each for each in found if each["event"] == "Displayed")
    assert shown["outputs"][0]["blob"] == "loss"
    tokens = ["test", "--model=net.prototxt", "--weights=tiny_iter_8.caffemodel", "--quiet"]
    assert cli.main([*tokens, "--json", "--iterations=2"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["event"] == "TestFinished"
    assert {output["blob"] for output in last["outputs"]} == {"accuracy", "loss"}


def test_json_has_no_bare_infinities():
    text = encode(events.FinalLoss(3, math.inf), 1.0)
    assert json.loads(text) == {"event": "FinalLoss", "time": 1.0, "iteration": 3, "loss": "inf"}


def test_quiet_leaves_warnings_and_the_log_file(folder, capsys):
    assert cli.main(["train", "--solver=solver.prototxt", "--quiet", "--log_file=run.log"]) == 0
    assert capsys.readouterr().err == ""
    assert "Optimization Done." in (folder / "run.log").read_text()
