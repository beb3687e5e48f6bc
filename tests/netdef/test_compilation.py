"""What torch.compile makes is kept, and a folded net gives the same through it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cortado.netdef import Net
from cortado.netdef.compilation import CACHE_VARIABLE
from cortado.netdef.execution import Execution
from cortado.proto import caffe_pb2
from cortado.proto.text import parse

TEXT = """
layer { name: "in" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {
  num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "scale" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
"""


def build(compile: bool) -> Net:
    torch.manual_seed(3)
    message = parse(TEXT, caffe_pb2.NetParameter).message
    net = Net(message, "TEST", execution=Execution(compile=compile))
    for buffer in net.buffers():
        torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return net


@torch.no_grad()
def test_compiled_and_folded_net_gives_the_same_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.delenv(CACHE_VARIABLE)
    plain, fast = build(False), build(True)
    fast.fold()
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(fast(data=x)["c"], plain(data=x)["c"], rtol=2e-4, atol=2e-5)
    assert any(each.is_file() for each in (tmp_path / "compiled").rglob("*"))
    for net in (plain, fast):  # weights that change are seen although they were constants
        net.layer("c").layer.blob(0).mul_(1.5)
    torch.testing.assert_close(fast(data=x)["c"], plain(data=x)["c"], rtol=2e-4, atol=2e-5)


def test_a_folder_that_the_environment_names_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    build(True)
    assert os.environ[CACHE_VARIABLE] == str(tmp_path)
