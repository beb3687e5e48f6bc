"""Whole public nets against what Caffe computed with the same weights and inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cortado.layers.native import library
from cortado.netdef import Net
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from support.public_nets import NETS
from support.whole_nets import (
    SOFTMAX_TOLERANCE,
    TOLERANCE,
    check_statistics,
    close,
    formula_weight,
    gradient_tolerance,
    inputs_of,
    load_record,
)


def with_formula_weights(name: str) -> Net:
    net = Net(parse(NETS[name](), caffe_pb2.NetParameter, name).message, "TEST")
    owned: set[int] = set()
    with torch.no_grad():
        for step in net.steps:
            for index in range(len(step.layer.blobs)):
                blob = step.layer.blob(index)
                if blob.data_ptr() not in owned:  # a shared blob has its first owner's value
                    owned.add(blob.data_ptr())
                    values = formula_weight(step.name, step.type, index, tuple(blob.shape))
                    blob.copy_(torch.from_numpy(values))
    return net


@pytest.mark.parametrize("compiled", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("name", sorted(NETS))
def test_agrees_with_caffe(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(library, "suits", lambda *tensors, **options: False)
    record, meta = load_record(name)
    net = with_formula_weights(name)
    assert sum(param.tensor.numel() for param in net.params) == meta["params"] - sum(
        net.layer(layer).layer.blob(index).numel() for layer, index, *_ in meta["shared_blobs"]
    )
    assert net.outputs == sorted(meta["outputs"])
    net.keep_blobs = True
    with torch.set_grad_enabled(meta["backward"]):
        inputs = inputs_of(net.inputs, record, meta["input_kinds"])
        outputs = net(**{each: torch.from_numpy(values) for each, values in inputs.items()})
    for output, values in outputs.items():
        tolerance = SOFTMAX_TOLERANCE if output == "prob" else TOLERANCE
        close(values.detach().numpy(), record[f"out/{output}"], tolerance, output)
    check_statistics(
        {each: blob.detach().numpy() for each, blob in net.blobs.items()},
        record["blob_names"], record["blob_stats"], record["blob_first8"],
        SOFTMAX_TOLERANCE if "prob" in outputs else TOLERANCE,
    )  # fmt: skip
    assert net.loss.item() == pytest.approx(float(record["loss"]), rel=TOLERANCE)
    if meta["backward"]:
        net.loss.backward()
        gradients = {
            f"{step.name}/{index}": np.zeros(blob.shape) if blob.grad is None else blob.grad.numpy()
            for step in net.steps
            for index in range(len(step.layer.blobs))
            for blob in [step.layer.blob(index)]
        }
        check_statistics(
            gradients, record["paramdiff_names"], record["paramdiff_stats"],
            record["paramdiff_first8"], gradient_tolerance(name, compiled),
        )  # fmt: skip
