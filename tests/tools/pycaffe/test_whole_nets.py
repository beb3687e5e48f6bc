"""Whole public nets through the Python interface, Splits included, against what Caffe computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortado.tools import pycaffe as caffe
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


def with_formula_weights(path: Path) -> caffe.Net:
    net = caffe.Net(path, caffe.TEST)
    owned: set[int] = set()
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            address = blob.data.__array_interface__["data"][0]
            if address not in owned:  # a shared blob has its first owner's value
                owned.add(address)
                layer_type = net.layer_dict[name].type
                blob.data[...] = formula_weight(name, layer_type, index, blob.data.shape)
    return net


@pytest.mark.parametrize("name", sorted(NETS))
def test_agrees_with_caffe(name: str, tmp_path: Path) -> None:
    record, meta = load_record(name)
    (tmp_path / "net.prototxt").write_text(NETS[name]())
    net = with_formula_weights(tmp_path / "net.prototxt")
    assert list(net.blobs) == record["blob_names"].tolist()
    assert len(net.layers) == meta["layers"]
    assert net.outputs == sorted(meta["outputs"])
    inputs = inputs_of({n: net.blobs[n].shape for n in net.inputs}, record, meta["input_kinds"])
    outputs = net.forward(**inputs)
    for blob, shape in ((key, record[f"shape/{key}"]) for key in net.blobs):
        assert net.blobs[blob].shape == tuple(shape)
    tolerance = SOFTMAX_TOLERANCE if "prob" in outputs else TOLERANCE
    for output, values in outputs.items():
        close(values, record[f"out/{output}"], tolerance, output)
    check_statistics(
        {blob: net.blobs[blob].data for blob in net.blobs},
        record["blob_names"], record["blob_stats"], record["blob_first8"], tolerance,
    )  # fmt: skip
    if meta["backward"]:
        net.clear_param_diffs()
        net.backward()
        check_statistics(
            {f"{layer}/{i}": b.diff for layer, bs in net.params.items() for i, b in enumerate(bs)},
            record["paramdiff_names"], record["paramdiff_stats"], record["paramdiff_first8"],
            gradient_tolerance(name),
        )  # fmt: skip
