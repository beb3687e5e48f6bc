"""Every subcommand runs, on small data: a new one must be entered here."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

import cortado
from cortado.tools import cli

NET = """
name: "tiny"
layer { name: "images" type: "Data" top: "data" top: "label"
  data_param { source: "db" batch_size: 4 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "scores" type: "InnerProduct" bottom: "conv" top: "scores"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 4 display: 1
test_iter: 2 test_interval: 2 snapshot_prefix: "tiny" random_seed: 1 solver_mode: CPU
"""
WEIGHTS = "tiny_iter_4.caffemodel"

#: A command line for each subcommand; those of MADE come first, as others need what they make.
MADE = {
    "convert_imageset": "photos/ list.txt db",
    "deploy": "net.prototxt",
    "train": "--solver solver.prototxt --log_file run.log --tensorboard board",
}
LINES = MADE | {
    "cache": "list",
    "check": "solver.prototxt --data",
    "classify": "photos/a/0.png out.npy --model_def deploy.prototxt "
    f"--pretrained_model {WEIGHTS} --mean_file= --images_dim 8,8",
    "completion": "bash",
    "compute_image_mean": "db mean.binaryproto",
    "convert": f"{WEIGHTS} tiny.safetensors --model net.prototxt",
    "data": "info db",
    "detect": "windows.csv out.csv --crop_mode list --model_def deploy.prototxt "
    f"--pretrained_model {WEIGHTS} --mean_file= --context_pad 1",
    "device_query": "",
    "draw_net": "net.prototxt net.svg",
    "eval": f"{WEIGHTS} --data db",
    "expand": "net.prototxt",
    "extract_features": f"{WEIGHTS} net.prototxt conv features 1 lmdb",
    "extract_seconds": "run.log seconds.txt",
    "lr_finder": "solver.prototxt --iterations 4",
    "new": "fresh --images photos --size 8 --epochs 1",
    "parse_log": "run.log .",
    "plan": "net.prototxt",
    "plot_lr": "solver.prototxt",
    "plot_training_log": "6 loss.svg run.log",
    "resize_and_crop_images": "--input_folder photos --output_folder small",
    "runs": "list .",
    "show": f"filters net.prototxt {WEIGHTS} filters.png",
    "summarize": "net.prototxt",
    "tensorboard": "board",
    "test": f"--model net.prototxt --weights {WEIGHTS} --iterations 1",
    "time": "--model net.prototxt --iterations 1",
    "upgrade_net_proto_binary": f"{WEIGHTS} upgraded.caffemodel",
    "upgrade_net_proto_text": "net.prototxt upgraded.prototxt",
    "upgrade_solver_proto_text": "solver.prototxt upgraded_solver.prototxt",
    "zoo": "list lenet",
}
#: Run by tests of their own, because they take long or need what only those tests make.
ELSEWHERE = {
    "bench": "test_benchmarks",
    "dataset": "test_dataset",
    "demo": "test_demo",
    "download_model_binary": "test_caffe_tools",
    "replay": "test_solver_commands",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    lines = []
    for label, name in enumerate("ab"):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(8):
            path = f"{name}/{index}.png"
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            cv2.imwrite(str(folder / "photos" / path), pixels)
            lines.append(f"{path} {label}\n")
    (folder / "list.txt").write_text("".join(lines))
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "windows.csv").write_text("filename,ymin,xmin,ymax,xmax\nphotos/a/0.png,0,0,6,6\n")
    with contextlib.chdir(folder):
        for name, line in MADE.items():
            with open("deploy.prototxt", "w") as file:
                out = file if name == "deploy" else None
                with contextlib.redirect_stdout(out) if out else contextlib.nullcontext():
                    assert cli.main([name, *line.split()]) == 0, name
            if name == "deploy":
                deployed = (folder / "deploy.prototxt").read_text()
        (folder / "deploy.prototxt").write_text(deployed)
    return folder


def test_no_command_is_forgotten():
    assert set(LINES) | set(ELSEWHERE) == set(cli.subcommands())
    assert not set(LINES) & set(ELSEWHERE)


def test_the_documentation_names_every_command():
    text = (Path(cortado.__file__).parent / "docs" / "command_line.md").read_text()
    assert [name for name in cli.subcommands() if f"- `{name}`: " not in text] == []


def test_the_documentation_has_a_transcript_of_every_command():
    page = Path(cortado.__file__).parent / "docs" / "command_line.md"
    lines = page.read_text().splitlines()
    shown = {line.split()[2] for line in lines if line.startswith("$ cortado ")}
    assert shown == set(cli.subcommands())
    pictures = re.findall(r"\]\((images/.*?)\)", page.read_text())
    assert "images/live_display.svg" in pictures
    assert [each for each in pictures if not (page.parent / each).is_file()] == []


@pytest.mark.parametrize("name", sorted(LINES.keys() - MADE.keys()))
def test_it_runs(workplace, name, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    if name == "tensorboard":  # its server would run for ever
        done = subprocess.CompletedProcess([], 0)
        monkeypatch.setattr("cortado.tools.tensorboard.subprocess.run", lambda *a, **k: done)
    assert cli.main([name, *LINES[name].split()]) == 0, capsys.readouterr().err
