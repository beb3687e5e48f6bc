"""Each subcommand on a small net, as it is typed."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from cortado.tools import cli


def lines_of(text: str) -> list[str]:
    """The messages of a log, without their prefix."""
    return [line.partition("] ")[2] for line in text.splitlines()]


@pytest.fixture
def weights(folder, capsys):
    assert cli.main(["train", "--solver=solver.prototxt"]) == 0
    capsys.readouterr()
    return "tiny_iter_8.caffemodel"


def test_train_writes_snapshots_and_resumes(folder, weights, capsys):
    for iteration in (4, 8):
        for ending in ("caffemodel", "solverstate"):
            assert (folder / f"tiny_iter_{iteration}.{ending}").stat().st_size
    whole = (folder / weights).read_bytes()
    (folder / weights).unlink()
    assert (
        cli.main(["train", "-solver", "solver.prototxt", "-snapshot=tiny_iter_4.solverstate"]) == 0
    )
    messages = lines_of(capsys.readouterr().err)
    assert "Resuming from tiny_iter_4.solverstate" in messages
    assert len((folder / weights).read_bytes()) == len(whole)


def test_train_says_where_it_runs_and_from_which_weights(folder, weights, capsys):
    assert cli.main(["train", "--solver=solver.prototxt", f"--weights={weights}"]) == 0
    messages = lines_of(capsys.readouterr().err)
    assert messages[0] == "Use CPU."
    assert f"Finetuning from {weights}" in messages


@pytest.mark.parametrize("flag", ["--gpu=0", "--gpu=all"])
def test_gpu_on_a_machine_without_one(folder, flag, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["train", "--solver=solver.prototxt", flag]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{flag.replace('=', ' ')}: no GPU on this machine" in error


def test_solver_mode_counts_only_where_it_is_written(folder, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    solver = (folder / "solver.prototxt").read_text()
    (folder / "silent.prototxt").write_text(solver.replace("solver_mode: CPU", ""))
    assert cli.main(["train", "--solver=silent.prototxt"]) == 0
    (folder / "gpu.prototxt").write_text(solver.replace("CPU", "GPU"))
    assert cli.main(["train", "--solver=gpu.prototxt"]) == 5


def test_test_prints_batches_and_means(folder, weights, capsys):
    tokens = ["test", "-model", "net.prototxt", "-weights", weights, "-iterations", "3"]
    assert cli.main(tokens) == 0
    messages = lines_of(capsys.readouterr().err)
    assert messages[0] == "Use CPU."
    built = messages.index("Network initialization done.")
    assert messages[built + 1] == "Running for 3 iterations."
    losses = [float(m.split("= ")[1]) for m in messages if re.match(r"Batch \d, loss = ", m)]
    assert len(losses) == 3
    mean = sum(losses) / 3
    assert float(messages[-3].removeprefix("Loss: ")) == pytest.approx(mean, rel=1e-4)
    assert messages[-2].startswith("accuracy = ")
    found = re.fullmatch(r"loss = (\S+) \(\* 1 = (\S+) loss\)", messages[-1])
    assert found
    assert float(found[1]) == pytest.approx(mean, rel=1e-4)


def test_test_takes_one_weights_file_whatever_its_name(folder, weights, capsys):
    (folder / weights).rename(folder / "a,b.caffemodel")
    tokens = ["test", "--model=net.prototxt", "--weights=a,b.caffemodel", "--iterations=1"]
    assert cli.main(tokens) == 0


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_time_names_every_layer(folder, phase, capsys):
    assert cli.main(["time", "-model=net.prototxt", "-iterations=2", f"-phase={phase}"]) == 0
    messages = lines_of(capsys.readouterr().err)
    start, end = (messages.index(f"*** Benchmark {word} ***") for word in ("begins", "ends"))
    block = messages[start + 1 : end]
    layers = ["data", "conv", "relu", "score", "loss"]
    if phase == "TEST":
        layers.insert(4, "accuracy")
    rows = [m for m in block if "\t" in m]
    expected = [f"{name:>10}\t{way}" for name in layers for way in ("forward", "backward")]
    assert [row.partition(":")[0] for row in rows] == expected
    assert all(re.fullmatch(r".*: \S+ ms\.", row) for row in rows)
    timed = {row.partition(":")[0].strip(): float(row.split()[-2]) for row in rows}
    assert timed["conv\tbackward"] > 0
    for title in ("Average Forward pass", "Average Backward pass", "Average Forward-Backward"):
        assert any(re.fullmatch(rf"{title}: \S+ ms\.", message) for message in block)


def average(messages, title):
    (row,) = (m for m in messages if m.startswith(f"Average {title}: "))
    return float(row.split()[-2])


@pytest.mark.parametrize("more", [(), ("--precision=bf16",)])
def test_time_of_whole_passes(folder, more, capsys):
    command = ["time", "--model=net.prototxt", "--iterations=2", "--noper_layer", *more]
    assert cli.main([*command, "--phase=TRAIN"]) == 0
    train = lines_of(capsys.readouterr().err)
    assert cli.main([*command, "--phase=TEST"]) == 0
    test = lines_of(capsys.readouterr().err)
    for messages in (train, test):
        assert not any("\t" in message for message in messages)
        assert average(messages, "Forward pass") > 0
    assert average(train, "Backward pass") > 0
    assert average(test, "Backward pass") == 0
    assert average(test, "Forward-Backward") == average(test, "Forward pass")


def test_time_runs_backward_without_a_loss_too(folder, capsys):
    net = (folder / "net.prototxt").read_text()
    (folder / "use.prototxt").write_text(net[: net.index('layer {\n  name: "accuracy"')])
    assert cli.main(["time", "-model=use.prototxt", "-iterations=1"]) == 0
    messages = lines_of(capsys.readouterr().err)
    row = next(m for m in messages if "conv\tbackward" in m)
    assert float(row.split()[-2]) > 0
    assert average(messages, "Backward pass") > 0


def test_time_computes_the_gradients_of_the_net(folder):
    """Layer by layer is the same backward as the whole net's."""
    import torch

    from cortado.netdef import Net
    from cortado.tools.output import stopwatch

    net = Net("net.prototxt", "TRAIN")
    batch = net.next_batch()
    (source,) = net.sources
    source.source.next = lambda device: tuple(batch[top] for top in source.tops)
    found: dict[int, torch.Tensor] = {}
    plain = stopwatch._gradients

    def noting(tops, wanted, given):
        result = plain(tops, wanted, given)
        found.update(zip(map(id, wanted), result, strict=True))
        return result

    stopwatch._gradients = noting
    try:
        times = stopwatch.measure(net)
    finally:
        stopwatch._gradients = plain
    outputs = net(**batch)
    net.loss.backward()
    assert float(times.loss) == pytest.approx(outputs["loss"].item())
    for param in net.params:
        torch.testing.assert_close(found[id(param.tensor)], param.tensor.grad)


def test_check_prints_a_table(folder, capsys):
    assert cli.main(["check", "net.prototxt", "--phase=test"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("conv "))
    assert row.split() == [
        "conv",
        "Convolution",
        "data",
        "conv",
        "4x4x6x6",
        "112",
        *row.split()[6:],
    ]
    assert "6 layers, 547 parameters" in out
    assert "outputs: accuracy, loss" in out


def test_check_of_a_solver_checks_all_its_nets(folder, capsys):
    assert cli.main(["check", "solver.prototxt"]) == 0
    out = capsys.readouterr().out
    assert "net.prototxt: train net" in out
    assert "net.prototxt: test net #0" in out


def test_check_reports_all_faults_once(folder, capsys):
    net = (folder / "net.prototxt").read_text()
    broken = net.replace('"ReLU"', '"RELU"').replace(
        'bottom: "score" bottom: "label"', 'bottom: "scor" bottom: "label"'
    )
    (folder / "net.prototxt").write_text(broken)
    solver = (folder / "solver.prototxt").read_text()
    (folder / "solver.prototxt").write_text(solver.replace('"fixed"', '"fixt"'))
    assert cli.main(["check", "solver.prototxt"]) == 2
    error = capsys.readouterr().err
    assert error.count("unknown layer type 'RELU'; did you mean 'ReLU'?") == 1
    assert "net.prototxt:" in error
    assert "fixt" in error
    assert "scor" in error


def test_device_query(capsys):
    assert cli.main(["device_query"]) == 0
    assert "Cores:" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["png", "svg", "dot"])
@pytest.mark.parametrize("phase", ["ALL", "TEST"])
def test_draw_net(folder, ending, phase, capsys):
    assert cli.main(["draw_net", "net.prototxt", f"net.{ending}", f"--phase={phase}"]) == 0
    picture = (folder / f"net.{ending}").read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "dot": b"digraph net {"}[ending]
    assert picture.startswith(start)
    if ending == "dot":
        text = picture.decode()
        assert "conv (Convolution)" in text
        assert "+ relu (ReLU)" in text
        assert ("conv: 4x4x6x6" in text) == (phase == "TEST")


def test_draw_net_refuses_an_unknown_kind_of_picture(folder, capsys):
    assert cli.main(["draw_net", "net.prototxt", "net.bmpx"]) == 2
    assert "must end in" in capsys.readouterr().err


@pytest.mark.parametrize("chart", range(8))
def test_plot_training_log(folder, chart, capsys):
    assert cli.main(["train", "--solver=solver.prototxt", "--log_file=run.log"]) == 0
    assert cli.main(["plot_training_log", str(chart), "chart.png", "run.log", "run.log"]) == 0
    assert (folder / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_plot_of_what_is_no_log(folder, capsys):
    assert cli.main(["plot_training_log", "0", "chart.png", "net.prototxt"]) == 3
    assert "no line of a training run" in capsys.readouterr().err


def in_terminal(*tokens: str) -> str:
    """What a command shows on a terminal of 100 columns."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cortado.tools.cli", *tokens],
        stdout=follower,
        stderr=follower,
        env=environment,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_gets_log_lines_and_a_live_display(folder):
    solver = (folder / "solver.prototxt").read_text()
    (folder / "long.prototxt").write_text(solver.replace("max_iter: 8", "max_iter: 800"))
    shown = in_terminal("train", "--solver=long.prototxt")
    assert "Iteration 400, lr = 0.01" in shown
    assert "/800" in shown
    assert re.search(r"loss [\d.]+", shown)
    assert "img/s" in shown


def test_no_terminal_no_live_display(folder):
    done = subprocess.run(
        [sys.executable, "-m", "cortado.tools.cli", "train", "--solver=solver.prototxt"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in done.stderr
    assert "img/s" not in done.stderr
    assert done.stdout == ""


def test_the_live_display_shows_epochs_and_test_results(folder):
    """Driven with real data, so that an epoch has an end."""
    import cv2
    import numpy as np

    lines = []
    for index in range(8):
        cv2.imwrite(f"{index}.png", np.full((8, 8, 3), 20 * index, np.uint8))
        lines.append(f"{index}.png {index % 3}\n")
    (folder / "list.txt").write_text("".join(lines))
    assert cli.main(["convert_imageset", "./", "list.txt", "db"]) == 0
    net = (folder / "net.prototxt").read_text()
    start = net.index('layer {\n  name: "conv"')
    data = 'layer { name: "data" type: "Data" top: "data" top: "label"\n'
    data += 'data_param { source: "db" batch_size: 4 backend: LMDB } }\n'
    (folder / "net.prototxt").write_text(data + net[start:])
    solver = (folder / "solver.prototxt").read_text()
    for field, value in (
        ("max_iter", 300), ("test_interval", 100), ("snapshot", 0), ("base_lr", 0.0001),
    ):  # fmt: skip
        solver = re.sub(rf"^{field}: .*$", f"{field}: {value}", solver, flags=re.MULTILINE)
    (folder / "solver.prototxt").write_text(solver)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", in_terminal("train", "--solver=solver.prototxt"))
    for part in ("test at ", "now", "before", "#0", "accuracy", "img/s", "lr 0.0001", "/300"):
        assert part in shown, part
    assert re.search(r"epoch \d+\.\d", shown)
    quiet = in_terminal("train", "--solver=solver.prototxt", "--quiet")
    assert quiet == ""
