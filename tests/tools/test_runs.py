"""Finding, listing and comparing runs."""

from __future__ import annotations

import contextlib

import pytest

from cortado.tools import cli


@pytest.fixture
def runs(folder):
    """Two runs in folders of their own: the second with another rate and a wider layer."""
    net, solver = ((folder / name).read_text() for name in ("net.prototxt", "solver.prototxt"))
    changes = {
        "one": (net, solver),
        "two": (
            net.replace("num_output: 4", "num_output: 6"),
            solver.replace("base_lr: 0.01", "base_lr: 0.02 momentum: 0.9"),
        ),
    }
    for name, (its_net, its_solver) in changes.items():
        place = folder / "runs" / name
        place.mkdir(parents=True)
        (place / "net.prototxt").write_text(its_net)
        (place / "solver.prototxt").write_text(its_solver)
        with contextlib.chdir(place):
            assert cli.main(["train", "--solver=solver.prototxt", f"--log_file={name}.log"]) == 0
    return folder


def test_list(runs, capsys):
    assert cli.main(["runs", "list", "runs"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["runs/one/one.log", "runs/two/two.log"]
    assert all(" tiny " in row and " solver.prototxt " in row and " done " in row for row in rows)
    assert "accuracy" in rows[0]


def test_diff_says_in_words_what_changed(runs, capsys):
    assert cli.main(["runs", "diff", "runs", "one", "two"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "solver: base_lr: 0.01 became 0.02" in lines
    assert "solver: momentum: unset became 0.9" in lines
    assert "net: layer conv: convolution_param.num_output: 4 became 6" in lines
    assert any(line.startswith("test loss: ") for line in lines)


def test_diff_of_a_run_with_itself(runs, capsys):
    assert cli.main(["runs", "diff", "runs", "one", "one"]) == 0
    assert "solver and net are the same" in capsys.readouterr().out


def test_overlay(runs):
    assert cli.main(["runs", "overlay", "runs", "both.svg"]) == 0
    picture = (runs / "both.svg").read_text()
    assert "<svg" in picture


@pytest.mark.parametrize(
    ("tokens", "code", "message"),
    [
        (["lst", "runs"], 2, "unknown action 'lst'; did you mean 'list'"),
        (["list", "nowhere"], 3, "there is no such folder"),
        (["diff", "runs", "one"], 2, "needs two runs, got 1"),
        (["diff", "runs", "one", "too"], 2, "no run 'too'"),
        (["overlay", "runs"], 2, "name the picture"),
    ],
)
def test_what_is_refused(runs, tokens, code, message, capsys):
    assert cli.main(["runs", *tokens]) == code
    assert message in capsys.readouterr().err
