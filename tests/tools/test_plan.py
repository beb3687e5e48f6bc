"""The plan subcommand."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortado.tools import plan
from cortado.tools.cli import main

NET = """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 16 dim: 3 dim: 32 dim: 32 } shape { dim: 16 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 64 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize(("text", "value"), [("8G", 8 << 30), ("512m", 512 << 20), ("1.5K", 1536)])
def test_sizes(text: str, value: int) -> None:
    assert plan.size(text) == value


@pytest.mark.parametrize(
    ("largest", "wanted", "expected"),
    [
        (100, 64, "batch_size 64, iter_size 1"),
        (100, 256, "batch_size 64, iter_size 4"),
        (0, 64, "does not fit"),
        (10, 7, "batch_size 7, iter_size 1"),
    ],
)
def test_proposal(largest: int, wanted: int, expected: str) -> None:
    assert plan.proposal(largest, wanted) == expected


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    assert main(["plan", str(path), "--gpu-memory", "1G", "--batch", "4096"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["FP32", "FP32", "BF16", "BF16"]
    assert all("iter_size" in line for line in lines[2:6])


def test_updates_in_backward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.proposal(100, 256, one_pass=True) == "does not fit in one pass"
    path = tmp_path / "net.prototxt"
    path.write_text(NET.replace("num_output: 10", "num_output: 500"))
    flags = ["plan", str(path), "--cpu-memory", "2G", "--batch", "64"]
    assert main(flags) == main([*flags, "--update-in-backward"]) == 0
    lines = capsys.readouterr().out.splitlines()
    usual, _, early, _ = (line.split() for line in lines if line.startswith("FP32"))
    assert early[-4:] == ["batch_size", "64,", "iter_size", "1"]
    assert int(early[4]) > int(usual[4])


def test_memory_of_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    assert main(["plan", str(path), "--cpu-memory", "2G"]) == 0
    assert "2.15 GB less 752 MB" in capsys.readouterr().out
    assert main(["plan", str(path), "--cpu-memory", "2G", "--gpu-memory", "2G"]) == 2


DATA = """
layer { name: "in" type: "Data" top: "data" top: "label" include { phase: %s }
  transform_param { %s } data_param { source: "nowhere" backend: LMDB batch_size: 6 } }
"""
BODY = NET.partition("\n  input_param")[2].partition("}\n")[2]


def planned(tmp_path: Path, transform: str, *flags: str) -> int:
    path = tmp_path / "net.prototxt"
    path.write_text(DATA % ("TRAIN", transform) + DATA % ("TEST", "") + BODY)
    return main(["plan", str(path), *flags])


def test_the_data_need_not_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert planned(tmp_path, "crop_size: 32") == 0
    guessed = capsys.readouterr().out
    assert "batch 6" in guessed
    assert "data: taken for 6 x 3 x 32 x 32 (nowhere" in caplog.text
    assert caplog.text.count("taken for") == 1  # not for the other phase
    assert planned(tmp_path, "", "--shape", "data=6,3,32,32") == 0
    assert capsys.readouterr().out == guessed


def test_a_size_that_nobody_knows_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(tmp_path, "") == 2
    assert "--shape data=" in capsys.readouterr().err
    assert planned(tmp_path, "crop_size: 32", "--shape", "image=6,3,32,32") == 2
    assert "data, label" in capsys.readouterr().err


def test_bad_size_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "net.prototxt", "--gpu-memory", "plenty"]) == 2
    assert "8G" in capsys.readouterr().err
