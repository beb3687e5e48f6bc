"""The layer cases that Caffe computed: reading them, running a layer on one, comparing."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from cortado.layers.base import Context, Layer
from cortado.layers.registry import find
from cortado.proto import caffe_pb2

CASES = Path(__file__).parents[1] / "goldens" / "cases"

#: Largest difference, relative to the largest magnitude of an array, by layer type; the reasons
#: are those of the reference data: copies are exact, sums and library functions round.
EXACT = 1e-7
ROUNDING = 1e-5
CANCELLING = 5e-5
PRODUCTS = 2e-5
TOLERANCES = {
    **dict.fromkeys(
        [
            "Concat",
            "Slice",
            "Split",
            "Flatten",
            "Reshape",
            "Crop",
            "Filter",
            "BatchReindex",
            "Silence",
            "Parameter",
            "Input",
            "Dropout",
            "ArgMax",
            "Threshold",
            "Clip",
            "ReLU",
            "AbsVal",
            "HDF5Output",
            "Python",
        ],
        EXACT,
    ),
    **dict.fromkeys(["Convolution", "Deconvolution", "InnerProduct", "Im2col"], PRODUCTS),
    **dict.fromkeys(["BatchNorm", "RNN", "LSTM", "Net"], CANCELLING),
}
#: Cases and parts of cases with a tolerance of their own.
SPECIAL = {
    ("BatchNorm", "train_tiny_variance"): 2e-3,
}
#: Gradients of parameters that are sums in which much cancels.
PARAMETER_TOLERANCES = {"PReLU": 5e-5, "Scale": 5e-5, "Bias": 5e-5}
#: Differences of this size mean nothing where a gradient cancels to about 0.
ABSOLUTE = 1e-6


#: Where Caffe's own result is a mistake that is not repeated; listed in docs/differences.md.
NOT_REPEATED = {
    "Power/inplace_linear": "Caffe's backward in place reads the diff after overwriting it",
}


@dataclass(frozen=True)
class Case:
    """One recorded case: its net, its arrays by key, and what the record says about it."""

    path: Path

    def __str__(self) -> str:
        return f"{self.type}/{self.name}"

    @property
    def type(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path) as data:
            return {key: data[key] for key in data}

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads(str(self.arrays["meta"]))

    @property
    def phase(self) -> int:
        return int(self.arrays["phase"])

    @property
    def prototxt(self) -> Path:
        return self.path.with_suffix(".prototxt")

    @cached_property
    def net(self) -> caffe_pb2.NetParameter:
        return text_format.Parse(self.prototxt.read_text(), caffe_pb2.NetParameter())

    @property
    def layer(self) -> caffe_pb2.LayerParameter:
        """The layer under test, which has the lower-cased type as its name."""
        return next(layer for layer in self.net.layer if layer.name == self.type.lower())

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose key begins with ``prefix/``, by the rest of the key."""
        start = f"{prefix}/"
        return {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)}


def all_cases() -> list[Case]:
    return [Case(path) for path in sorted(CASES.glob("*/*.npz"))]


def tolerance(case: Case, key: str) -> float:
    if key.startswith("paramdiff/") and case.type in PARAMETER_TOLERANCES:
        return PARAMETER_TOLERANCES[case.type]
    if case.type == "Pooling":
        return ROUNDING if "AVE" in case.prototxt.read_text() else EXACT
    if case.type == "Eltwise" and "MAX" in case.prototxt.read_text():
        return EXACT
    if case.type in ("Tile", "Im2col") and "out/" in key:
        return EXACT
    return SPECIAL.get((case.type, case.name), TOLERANCES.get(case.type, ROUNDING))


def enter_case_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in ``folder``, with the files that cases name beside it; what they write lands there."""
    for name in ("InfogainLoss", "Python"):
        for path in (CASES / name).iterdir():
            if path.suffix in (".binaryproto", ".py"):
                shutil.copy(path, folder)
    monkeypatch.chdir(folder)


class Comparison:
    """Collects where computed arrays differ from those of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.compared = 0
        self.faults: list[str] = []

    def check(self, key: str, actual: Tensor | np.ndarray | None) -> None:
        """Compare with the array recorded under ``key``; None stands for zeros."""
        expected = self.case.arrays[key].astype(np.float64)
        self.compared += 1
        if actual is None:
            found = np.zeros_like(expected)
        else:
            found = np.asarray(
                actual.detach().cpu() if isinstance(actual, Tensor) else actual, dtype=np.float64
            )
        if found.shape != expected.shape:
            self.faults.append(f"{key}: shape {found.shape}, Caffe's {expected.shape}")
            return
        if not expected.size:
            return
        allowed = tolerance(self.case, key) * np.abs(expected).max()
        allowed += ABSOLUTE if "diff/" in key or key.endswith("loss") else 1e-30
        error = np.abs(found - expected).max()
        if not error <= allowed:
            self.faults.append(f"{key}: differs by {error:.3g}, allowed {allowed:.3g}")

    def assert_agrees(self) -> None:
        assert not self.faults, "\n".join(self.faults)
        assert self.compared, "nothing was compared"


def build(message: caffe_pb2.LayerParameter, shapes: list[tuple[int, ...]], phase: int) -> Layer:
    """The layer of ``message`` with its blobs in memory."""
    context = Context(
        tuple(shapes), len(message.top), phase, bool(set(message.top) & set(message.bottom))
    )
    cls = find(message.type)
    assert issubclass(cls, Layer)
    layer = cls.from_message(message, context)
    layer.materialize()
    return layer


def as_tuple(tops: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (tops,) if isinstance(tops, Tensor) else tuple(tops)


def loss_weights(layer: Layer, message: caffe_pb2.LayerParameter) -> list[float]:
    given = list(message.loss_weight) or [layer.default_loss_weight]
    return (given + [0.0] * len(message.top))[: len(message.top)]


def run_layer(case: Case) -> Comparison:
    """Run the case's layer by itself: forward, backward, and the further forwards."""
    message = case.layer
    result = Comparison(case)
    blobs = {**case.part("out"), **case.part("in")}
    data = {
        name: torch.from_numpy(np.array(blobs[name])).requires_grad_() for name in message.bottom
    }
    layer = build(message, [tuple(data[name].shape) for name in message.bottom], case.phase)
    values = case.part(f"param/{message.name}")
    assert len(values) == len(layer.blobs)
    for index, value in values.items():
        with torch.no_grad():
            blob = layer.blob(int(index))
            assert tuple(blob.shape) == value.shape, f"blob {index}"
            blob.copy_(torch.from_numpy(np.array(value)))
    tops = forward(result, layer, message, [data[name] for name in message.bottom], "")
    if case.meta["backward"]:
        backward(result, layer, message, data, tops)
    for prefix in ("fwd2/", "fwd3/"):
        fed = case.part(f"{prefix}in")
        if fed:
            bottoms = [torch.from_numpy(np.array(fed.get(n, blobs[n]))) for n in message.bottom]
            forward(result, layer, message, bottoms, prefix)
    return result


def forward(
    result: Comparison,
    layer: Layer,
    message: caffe_pb2.LayerParameter,
    bottoms: list[Tensor],
    prefix: str,
) -> dict[str, Tensor]:
    tops = dict(zip(message.top, as_tuple(layer(*bottoms)), strict=True))
    arrays = result.case.arrays
    for name, top in tops.items():
        result.check(f"{prefix}out/{name}", top)
    weights = loss_weights(layer, message)
    loss = sum(
        w * top.detach().double().sum() for w, top in zip(weights, tops.values(), strict=True) if w
    )
    if f"{prefix}loss" in arrays:
        result.check(f"{prefix}loss", torch.as_tensor(loss))
    for key in result.case.part(f"{prefix}param_after/{message.name}"):
        result.check(f"{prefix}param_after/{message.name}/{key}", layer.blob(int(key)))
    return tops


def backward(
    result: Comparison,
    layer: Layer,
    message: caffe_pb2.LayerParameter,
    data: dict[str, Tensor],
    tops: dict[str, Tensor],
) -> None:
    case = result.case
    wanted = {f"indiff/{name}": data[name] for name in data if f"indiff/{name}" in case.arrays}
    for key in case.part(f"paramdiff/{message.name}"):
        wanted[f"paramdiff/{message.name}/{key}"] = layer.blob(int(key))
    wanted = {key: tensor for key, tensor in wanted.items() if tensor.requires_grad}
    pairs = [
        (top, torch.from_numpy(np.array(case.arrays[f"topdiff/{name}"])))
        for name, top in tops.items()
        if f"topdiff/{name}" in case.arrays and top.requires_grad
    ]
    grads: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if pairs and wanted:
        outputs, diffs = zip(*pairs, strict=True)
        grads = torch.autograd.grad(outputs, list(wanted.values()), diffs, allow_unused=True)
    for key, grad in zip(wanted, grads, strict=True):
        result.check(key, grad)
    for key in case.part(f"paramdiff/{message.name}"):
        full = f"paramdiff/{message.name}/{key}"
        if full not in wanted:
            result.check(full, None)
