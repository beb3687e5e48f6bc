"""Building a net imports no compiler: that takes longer than anything else at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cortado
from support.goldens import enter_case_folder

EXAMPLES = Path(cortado.__file__).parent / "examples"

#: Prints which compilers what stands before it has imported.
FOUND = """
import sys
print(*{"sympy", "torch._dynamo"}.intersection(sys.modules))
"""
MODEL = """
from cortado.netdef import Net
from cortado.tools.benchmarks.nets import definition
for phase in ("TRAIN", "TEST"):
    Net(definition({name!r}, 1), phase)
"""
FILE = """
from cortado.netdef import Net
for phase in ("TRAIN", "TEST"):
    Net({path!r}, phase)
"""
CASES = """
import torch
from support.shape_cases import SHAPE_CASES
for case in SHAPE_CASES:
    layer = case.build()
    layer.infer([torch.empty(shape, device="meta") for shape in case.bottoms])
    layer.materialize()
"""

INPUT = """
layer {{ name: "data" type: "Input" top: "a" top: "b" top: "c"
  input_param {{ shape {{ dim: {a} }} shape {{ dim: {b} }} shape {{ dim: {c} }} }} }}
"""
NETS = {
    "siamese": INPUT.format(a=[4, 1, 12, 12], b=[4, 1, 12, 12], c=[4])
    + """
layer { name: "conv" type: "Convolution" bottom: "a" top: "conv"
  param { name: "w" } param { name: "v" }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "conv_p" type: "Convolution" bottom: "b" top: "conv_p"
  param { name: "w" } param { name: "v" }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "mean" type: "Reduction" bottom: "conv" top: "mean" reduction_param { axis: 2 } }
layer { name: "mean_p" type: "Reduction" bottom: "conv_p" top: "mean_p"
  reduction_param { axis: 2 } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "mean" bottom: "mean_p" bottom: "c" top: "loss"
  contrastive_loss_param { margin: 1 } }
""",
    "autoencoder": INPUT.format(a=[4, 1, 6, 6], b=[4, 1], c=[4, 1])
    + """
layer { name: "flat" type: "Flatten" bottom: "a" top: "flat" }
layer { name: "code" type: "InnerProduct" bottom: "flat" top: "code"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 sparse: 2 } } }
layer { name: "squashed" type: "Sigmoid" bottom: "code" top: "squashed" }
layer { name: "back" type: "InnerProduct" bottom: "squashed" top: "back"
  inner_product_param { num_output: 36 weight_filler { type: "positive_unitball" } } }
layer { name: "entropy" type: "SigmoidCrossEntropyLoss" bottom: "back" bottom: "flat" }
layer { name: "shown" type: "Sigmoid" bottom: "back" top: "shown" }
layer { name: "error" type: "EuclideanLoss" bottom: "shown" bottom: "flat" loss_weight: 0 }
layer { name: "quiet" type: "Silence" bottom: "b" bottom: "c" }
""",
    "words": INPUT.format(a=[5, 2], b=[5, 2], c=[5, 2])
    + """
layer { name: "embed" type: "Embed" bottom: "a" top: "embed"
  embed_param { input_dim: 9 num_output: 4 weight_filler { type: "uniform" } } }
layer { name: "lstm" type: "LSTM" bottom: "embed" bottom: "b" top: "lstm"
  recurrent_param { num_output: 6 weight_filler { type: "msra" } } }
layer { name: "slice" type: "Slice" bottom: "lstm" top: "first" top: "second"
  slice_param { axis: 2 slice_point: 2 } }
layer { name: "flat" type: "Flatten" bottom: "first" top: "flat" }
layer { name: "other" type: "Reshape" bottom: "flat" top: "other"
  reshape_param { shape { dim: [0, 2, -1] } } }
layer { name: "sum" type: "Reduction" bottom: "other" top: "sum" loss_weight: 1 }
layer { name: "scores" type: "InnerProduct" bottom: "second" top: "scores"
  inner_product_param { num_output: 9 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "c" top: "loss"
  softmax_param { axis: 2 } }
""",
}


def imported(script: str) -> list[str]:
    """The compilers that a new interpreter has imported after ``script``."""
    command = [sys.executable, "-c", script + FOUND]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


@pytest.mark.parametrize("name", ["lenet", "bvlc_alexnet", "bvlc_googlenet", "resnet50_caffe"])
def test_common_nets_are_built_without_a_compiler(name: str) -> None:
    assert imported(MODEL.format(name=name)) == []


@pytest.mark.parametrize("name", NETS)
def test_further_nets_are_built_without_a_compiler(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NETS[name])
    assert imported(FILE.format(path=str(path))) == []


@pytest.mark.parametrize("name", ["transformer/encoder", "unet/unet", "speech/bidirectional"])
def test_examples_are_built_without_a_compiler(name: str) -> None:
    assert imported(FILE.format(path=str(EXAMPLES / f"{name}.prototxt"))) == []


def test_every_layer_is_built_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_case_folder(tmp_path, monkeypatch)
    assert imported(CASES) == []
