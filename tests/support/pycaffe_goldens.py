"""Running a recorded case through the Python interface, as the record was made."""

from __future__ import annotations

import torch

from cortado.tools import pycaffe as caffe
from support.goldens import Case, Comparison


def run_case(case: Case) -> Comparison:
    """Build the net, set parameters and inputs, forward, backward, and the further forwards."""
    result = Comparison(case)
    net = caffe.Net(
        case.prototxt, case.phase, level=case.meta.get("level") or 0,
        stages=case.meta.get("stages"),
    )  # fmt: skip
    if list(net._layer_names) != case.meta["layer_names"]:
        result.faults.append(f"layers {net._layer_names}")
    if list(net.blobs) != case.meta["blob_names"]:
        result.faults.append(f"blobs {list(net.blobs)}")
    for key, value in case.part("param").items():
        layer, index = key.rsplit("/", 1)
        net.params[layer][int(index)].data[...] = value
    _forward(result, net, "")
    if case.meta["backward"]:
        _backward(result, net)
    for prefix in ("fwd2/", "fwd3/"):
        if case.part(f"{prefix}in"):
            _forward(result, net, prefix)
    return result


def _forward(result: Comparison, net: caffe.Net, prefix: str) -> None:
    case = result.case
    for name, value in case.part(f"{prefix}in").items():
        net.blobs[name].reshape(*value.shape)
        net.blobs[name].data[...] = value
    loss = net._forward(0, len(net.layers) - 1)
    for name in case.part(f"{prefix}out"):
        result.check(f"{prefix}out/{name}", net.blobs[name].data)
    if f"{prefix}loss" in case.arrays:
        result.check(f"{prefix}loss", torch.tensor(loss))
    for key in case.part(f"{prefix}param_after"):
        layer, index = key.rsplit("/", 1)
        result.check(f"{prefix}param_after/{key}", net.params[layer][int(index)].data)


def _backward(result: Comparison, net: caffe.Net) -> None:
    case = result.case
    for name, value in case.part("topdiff").items():
        net.blobs[name].diff[...] = value
    net.clear_param_diffs()
    net.backward()
    for name in case.part("indiff"):
        result.check(f"indiff/{name}", net.blobs[name].diff)
    for key in case.part("paramdiff"):
        layer, index = key.rsplit("/", 1)
        result.check(f"paramdiff/{key}", net.params[layer][int(index)].diff)
