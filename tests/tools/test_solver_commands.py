"""--set, --snapshot=auto, plot_lr, lr_finder and replay, as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto.caffe_pb2 import Datum, NetParameter
from cortado.proto.files import read_message
from cortado.proto.state import read_state
from cortado.tools import cli

TRAIN = ("train", "--solver=solver.prototxt")


def lines_of(text: str) -> list[str]:
    """The messages of a log, without their prefix."""
    return [line.partition("] ")[2] for line in text.splitlines()]


def test_set_changes_solver_and_net_and_is_recorded(folder: Path, capsys) -> None:
    sets = ("--set", "base_lr=0.5", "--set=net.conv.num_output=7", "--set", "display=4")
    assert cli.main([*TRAIN, *sets]) == 0
    messages = lines_of(capsys.readouterr().err)
    assert "Set net.conv.num_output=7" in messages
    assert "Iteration 4, lr = 0.5" in messages
    assert not any(message.startswith("Iteration 2,") for message in messages)
    net = read_message("tiny_iter_8.caffemodel", NetParameter)
    layers = {layer.name: layer for layer in net.layer}
    assert list(layers["conv"].blobs[0].shape.dim) == [7, 3, 3, 3]
    resume = json.loads(str(read_state("tiny_iter_8.solverstate").extra["resume"]))
    assert resume["override"] == ["base_lr=0.5", "net.conv.num_output=7", "display=4"]


def test_set_of_what_there_is_not(folder: Path, capsys) -> None:
    assert cli.main([*TRAIN, "--set", "base_lr=fast", "--set", "net.con.num_output=1"]) == 2
    error = capsys.readouterr().err
    assert "base_lr must be a number, got 'fast'" in error
    assert "no layer 'con'; did you mean 'conv'" in error


def test_auto_starts_afresh_and_then_continues(folder: Path, capsys) -> None:
    assert cli.main([*TRAIN, "--snapshot=auto"]) == 0
    messages = lines_of(capsys.readouterr().err)
    assert "No complete snapshot of tiny: starting afresh" in messages
    whole = Path("tiny_iter_8.caffemodel").read_bytes()
    damaged = Path("tiny_iter_8.solverstate")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert cli.main([*TRAIN, "--snapshot=auto"]) == 0
    messages = lines_of(capsys.readouterr().err)
    assert "Resuming from tiny_iter_4.solverstate" in messages
    assert any("passed over: tiny_iter_8.solverstate" in message for message in messages)
    assert Path("tiny_iter_8.caffemodel").read_bytes() == whole


def test_changes_are_accepted_when_asked(folder: Path, capsys) -> None:
    assert cli.main([*TRAIN]) == 0
    again = [*TRAIN, "--snapshot=tiny_iter_4.solverstate", "--set", "momentum=0.5"]
    assert cli.main(again) == 4
    assert "solver field momentum" in capsys.readouterr().err
    assert cli.main([*again, "--accept_changes"]) == 0


def test_frozen_layers_run_once_when_asked(folder: Path, capsys) -> None:
    flags = ("--freeze=conv", "--feature_cache=kept")  # a folder turns it on
    assert cli.main([*TRAIN, *flags]) == 2
    assert "(DummyData): its records have no numbers" in capsys.readouterr().err
    with LmdbWriter("images") as writer:
        for number in range(8):
            datum = Datum(channels=3, height=8, width=8, data=bytes([number] * 192), label=1)
            writer.put(b"%d" % number, datum.SerializeToString())
    text = Path("net.prototxt").read_text()
    data = """type: "Data" top: "data" top: "label"
      data_param { source: "images" batch_size: 4 backend: LMDB }"""
    start, end = text.index('type: "DummyData"'), text.index('}\nlayer {\n  name: "conv"')
    Path("net.prototxt").write_text(text[:start] + data + text[end:])
    assert cli.main([*TRAIN, *flags]) == 0
    messages = lines_of(capsys.readouterr().err)
    assert "Features of the train net: 8 of 8 records, about 0 s left" in messages
    (told,) = (message for message in messages if message.startswith("The test net #0 runs"))
    assert "kept features (conv, label): 2 of 5 layers are left out" in told
    assert len(list(Path("kept").iterdir())) == 2


def test_auto_needs_a_prefix(folder: Path, capsys) -> None:
    assert cli.main([*TRAIN, "--snapshot=auto", "--set", "snapshot_prefix="]) == 2
    assert "needs a snapshot_prefix" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rate.png", "rate.svg"])
def test_plot_lr(folder: Path, name: str, capsys) -> None:
    sets = ["lr_policy=step", "gamma=0.1", "stepsize=5", "warmup_iter=2"]
    flags = [part for each in sets for part in ("--set", each)]
    assert cli.main(["plot_lr", "solver.prototxt", "--out", name, *flags]) == 0
    out = capsys.readouterr().out
    assert "8 iterations, from 0 to 0.001, at most 0.01" in out
    content = (folder / name).read_bytes()
    assert content.startswith(b"\x89PNG") or b"<svg" in content


def test_plot_lr_needs_an_end_and_a_policy(folder: Path, capsys) -> None:
    assert cli.main(["plot_lr", "solver.prototxt", "--set", "lr_policy=stp"]) == 2
    assert "did you mean 'step'" in capsys.readouterr().err
    assert cli.main(["plot_lr", "solver.prototxt", "--set", "max_iter=0"]) == 2
    assert "give --iterations" in capsys.readouterr().err
    assert cli.main(["plot_lr", "solver.prototxt", "--iterations", "3"]) == 0
    assert "3 iterations" in capsys.readouterr().out


def test_plot_lr_of_a_run_that_is_counted_in_epochs(folder: Path, capsys) -> None:
    text = re.sub(r"max_iter: \d+", "max_epoch: 3", (folder / "solver.prototxt").read_text())
    (folder / "epochs.prototxt").write_text(text)
    flags = ["--set", "lr_policy=linear", "--set", "base_lr=0.5"]
    assert cli.main(["plot_lr", "epochs.prototxt", *flags]) == 2
    assert "max_epoch counts epochs" in capsys.readouterr().err
    assert cli.main(["plot_lr", "epochs.prototxt", *flags, "--iterations", "5"]) == 0
    assert "5 iterations, from 0.5 to 0.1" in capsys.readouterr().out


def test_lr_finder(folder: Path, capsys) -> None:
    before = set(folder.iterdir())
    flags = ["--iterations=60", "--low=1e-4", "--high=100", "--out=range.png"]
    assert cli.main(["lr_finder", "solver.prototxt", *flags]) == 0
    assert "The loss falls fastest at a learning rate of" in capsys.readouterr().out
    assert set(folder.iterdir()) - before == {folder / "range.png"}
    assert (folder / "range.png").read_bytes().startswith(b"\x89PNG")


def test_lr_finder_refuses_an_empty_range(folder: Path, capsys) -> None:
    assert cli.main(["lr_finder", "solver.prototxt", "--low=1", "--high=0.1"]) == 2
    assert "below --high" in capsys.readouterr().err


def test_replay_shows_where_it_began(folder: Path, capsys) -> None:
    assert (
        cli.main(
            [
                *TRAIN,
                "--set",
                "net.conv.weight_filler.type=constant",
                "--set",
                "net.conv.weight_filler.value=3e38",
            ]
        )
        != 0
    )
    assert "iteration 0: loss is" in capsys.readouterr().err
    assert cli.main(["replay", "tiny_not_finite_iter_0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("iteration 0: loss is")
    assert lines[1].split() == ["layer", "type", "top", "shape", "values", "gradient"]
    (conv,) = [line for line in lines if line.startswith("conv ")]
    assert conv.endswith("<--")
    assert "not finite" in conv
    assert lines[-1].endswith("layer 'conv': its output 'conv' is not finite")


def test_replay_of_no_bundle(folder: Path, capsys) -> None:
    assert cli.main(["replay", "elsewhere"]) == 3
    assert "elsewhere: is no bundle" in capsys.readouterr().err
