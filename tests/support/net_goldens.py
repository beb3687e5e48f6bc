"""Running a recorded case as a whole net."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from cortado.netdef import Net
from cortado.proto.files import read_net
from support.goldens import Case, Comparison


def run_net(case: Case, caffe_quirks: bool = False) -> Comparison:
    """Run the case's prototxt as a net: forward, backward, and the further forwards."""
    result = Comparison(case)
    document = read_net(case.prototxt)
    document.message.caffe_quirks = caffe_quirks
    net = Net(
        document,
        case.phase,
        level=case.meta.get("level") or 0,
        stages=case.meta.get("stages") or (),
    )
    net.keep_blobs = True
    for key, value in case.part("param").items():
        layer, index = key.rsplit("/", 1)
        with torch.no_grad():
            blob = net.layer(layer).layer.blob(int(index))
            blob.copy_(torch.from_numpy(np.array(value)))
    inputs = {name: torch.zeros(shape) for name, shape in net.inputs.items()}
    inputs.update(_tensors(case, "in"))
    _forward(result, net, inputs, "")
    if case.meta["backward"]:
        _backward(result, net, inputs)
    for prefix in ("fwd2/", "fwd3/"):
        fed = _tensors(case, f"{prefix}in")
        if fed:
            inputs.update(fed)
            _forward(result, net, inputs, prefix)
    return result


def _tensors(case: Case, part: str) -> dict[str, Tensor]:
    found = {key: torch.from_numpy(np.array(value)) for key, value in case.part(part).items()}
    return {key: tensor.requires_grad_() for key, tensor in found.items()}


def _forward(result: Comparison, net: Net, inputs: dict[str, Tensor], prefix: str) -> None:
    net(**inputs)
    for name in result.case.part(f"{prefix}out"):
        result.check(f"{prefix}out/{name}", net.blobs[_unsplit(name)])
    if f"{prefix}loss" in result.case.arrays:
        result.check(f"{prefix}loss", net.loss)
    for key in result.case.part(f"{prefix}param_after"):
        layer, index = key.rsplit("/", 1)
        result.check(f"{prefix}param_after/{key}", net.layer(layer).layer.blob(int(index)))


def _unsplit(name: str) -> str:
    """The blob that Caffe's own Split layer made ``<blob>_<layer>_<top>_split_<copy>`` of."""
    if "_split_" not in name:
        return name
    return re.sub(r"_[^_]+_\d+_split_\d+$", "", name)


def _backward(result: Comparison, net: Net, inputs: dict[str, Tensor]) -> None:
    case = result.case
    blobs = {**net.blobs, **inputs}
    wanted = {f"indiff/{name}": blobs[name] for name in case.part("indiff")}
    for key in case.part("paramdiff"):
        layer, index = key.rsplit("/", 1)
        wanted[f"paramdiff/{key}"] = _owner(net, net.layer(layer).layer.blob(int(index)))
    pairs = [
        (net.blobs[name], torch.from_numpy(np.array(diff)))
        for name, diff in case.part("topdiff").items()
        if net.blobs[name].requires_grad
    ]
    receivers = {key: tensor for key, tensor in wanted.items() if tensor.requires_grad}
    grads: tuple[Tensor | None, ...] = (None,) * len(receivers)
    if pairs and receivers:
        tops, diffs = zip(*pairs, strict=True)
        grads = torch.autograd.grad(tops, list(receivers.values()), diffs, allow_unused=True)
    found = dict(zip(receivers, grads, strict=True))
    for key in wanted:
        grad = found.get(key)
        result.check(key, grad if grad is None else grad.reshape(case.arrays[key].shape))


def _owner(net: Net, blob: Tensor) -> Tensor:
    """The parameter that ``blob`` is, or that it is a view of."""
    same = (p.tensor for p in net.params if p.tensor.data_ptr() == blob.data_ptr())
    return next(same, blob)
