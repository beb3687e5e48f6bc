"""A folded net gives what the layers of the prototxt give, and sees it when its weights change."""

from __future__ import annotations

import copy

import pytest
import torch

from cortado.netdef import Net
from cortado.netdef.execution import Execution
from cortado.netdef.passes.fold import Folded
from cortado.netdef.passes.prepack import PackedConvolution, PackedProduct, available
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from cortado.proto.weights import Weights
from support.kernels import needs_compiler

CHANNELS = 6


def layer(kind: str, name: str, bottoms: str, top: str, more: str = "") -> str:
    wires = "".join(f' bottom: "{each}"' for each in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}"{wires} top: "{top}" {more} }}'


def conv(name: str, bottom: str, more: str = "") -> str:
    fields = f"num_output: {CHANNELS} kernel_size: 3 pad: 1 {more} weight_filler {{ type: 'msra' }}"
    return layer("Convolution", name, bottom, name, f"convolution_param {{ {fields} }}")


def norm(blob: str) -> list[str]:
    scale = "scale_param { bias_term: true filler { value: 1.5 } bias_filler { value: 0.1 } }"
    return [
        layer("BatchNorm", f"bn_{blob}", blob, blob),
        layer("Scale", f"scale_{blob}", blob, blob, scale),
    ]


def relu(blob: str) -> str:
    return layer("ReLU", f"relu_{blob}", blob, blob)


def product(name: str, bottom: str, more: str = "", outputs: int = 5) -> str:
    fields = f"num_output: {outputs} weight_filler {{ type: 'xavier' }} {more}"
    return layer("InnerProduct", name, bottom, name, f"inner_product_param {{ {fields} }}")


INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 3 %s } } }'
PICTURE = INPUT % "dim: 4 dim: 9 dim: 9"
POOL = "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }"
NETS = {
    "plain": [conv("c1", "data"), relu("c1"), conv("c2", "c1", "group: 2 stride: 2"),
              product("fc", "c2"), relu("fc"), product("last", "fc", "transpose: true")],
    # The shortcut is there before the branch, as in a residual net, and after it.
    "residual": [conv("c1", "data", "bias_term: false"), *norm("c1"), relu("c1"),
                 conv("c2", "c1"), *norm("c2"), layer("Eltwise", "sum", "c1 c2", "sum"),
                 relu("sum"), conv("c3", "sum"), layer("TanH", "side", "sum", "side"),
                 layer("Eltwise", "end", "c3 side", "end")],
    "two_convolutions": [conv("a", "data"), conv("b", "data"),
                         layer("Eltwise", "sum", "a b", "sum"), relu("sum")],
    "twice_the_same": [conv("a", "data"), layer("Eltwise", "sum", "a a", "sum"), relu("sum")],
    "with_coeff": [conv("a", "data"), conv("b", "data"),
                   layer("Eltwise", "sum", "a b", "sum", "eltwise_param { coeff: 1 coeff: -1 }")],
    "read_twice": [conv("a", "data"), layer("ReLU", "r", "a", "r"), layer("TanH", "t", "a", "t"),
                   layer("Concat", "cat", "r t", "cat")],
    # Memory that is not channels-last, on both sides.
    "reshaped": [conv("a", "data"), layer("Reshape", "flat", "a", "flat",
                      "reshape_param { shape { dim: 0 dim: -1 } }"),
                 layer("Reshape", "b", "flat", "b",
                       "reshape_param { shape { dim: 0 dim: 6 dim: 9 dim: 9 } }"),
                 layer("TanH", "t", "b", "t"), conv("c", "b"),
                 layer("Eltwise", "sum", "t c", "sum"), relu("sum")],
    "vector": [product("whole", "data", "axis: 0"), layer("ReLU", "r", "whole", "whole")],
    "large": [conv("c1", "data"), product("a", "c1", outputs=1024), relu("a"),
              product("b", "a", outputs=256), relu("b")],
    "leaky": [conv("a", "data"), layer("ReLU", "r", "a", "a", "relu_param { negative_slope: 1 }")],
    "pooled": [conv("a", "data"), layer("Pooling", "pool", "a", "pool", POOL),
               layer("Pooling", "wide", "a", "wide",
                     "pooling_param { kernel_h: 2 kernel_w: 5 pad_h: 0 pad_w: 2 }")],
}  # fmt: skip


def build(name: str, execution: Execution | None = None) -> Net:
    torch.manual_seed(3)
    message = parse("\n".join([PICTURE, *NETS[name]]), caffe_pb2.NetParameter).message
    net = Net(message, "TEST", execution=execution)
    for buffer in net.buffers():
        torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return net


def batch(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 9, 9, generator=torch.Generator().manual_seed(5))


def kinds(net: Net) -> list[str]:
    assert net._inference is not None
    return [type(step.layer).__name__ for step in net._inference.steps]


@pytest.mark.parametrize("memory_format", ["CHANNELS_LAST", "CONTIGUOUS"])
@pytest.mark.parametrize("count", [3, 1])  # packed for batches of 3
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_folded_net_gives_the_same(name: str, count: int, memory_format: str) -> None:
    count = 3 if name == "vector" else count
    net = build(name, Execution(memory_format=memory_format))
    expected = net(data=batch(count))
    net.fold()
    given = batch(count)
    for key, value in net(data=given).items():
        torch.testing.assert_close(value, expected[key], rtol=2e-4, atol=2e-5, msg=key)
    assert torch.equal(given, batch(count))


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_blobs_are_all_there_and_unchanged(name: str) -> None:
    plain, folded = build(name, Execution(optimize=False)), build(name)
    folded.fold()
    for net in (plain, folded):
        net.keep_blobs = True
        net(data=batch())
    assert plain.blobs.keys() == folded.blobs.keys()
    for key, value in plain.blobs.items():
        torch.testing.assert_close(folded.blobs[key], value, rtol=2e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", ["PackedConvolution"] * 2 + ["PackedProduct"] * 2),
        ("residual", ["PackedConvolution"] * 3 + ["TanH", "Eltwise"]),
        ("two_convolutions", ["PackedConvolution"] * 2),
        ("twice_the_same", ["PackedConvolution", "Eltwise", "Rectifier"]),
        ("with_coeff", ["PackedConvolution"] * 2 + ["Eltwise"]),
        ("read_twice", ["PackedConvolution", "ReLU", "TanH", "Concat"]),
        ("leaky", ["PackedConvolution", "Rectifier"]),
        ("pooled", ["PackedConvolution", "Pooling", "Pooling"]),
    ],
)
def test_what_follows_a_product_is_computed_with_it(name: str, expected: list[str]) -> None:
    assert available(torch.float32)
    net = build(name)
    net.fold()
    assert kinds(net) == expected


@needs_compiler
@torch.no_grad()
def test_large_products_of_few_rows_have_no_copy_of_their_weights() -> None:
    net = build("large")
    expected = net(data=batch(40))
    net.fold()
    assert kinds(net) == ["PackedConvolution", "PackedProduct", "PlainProduct"]
    torch.testing.assert_close(net(data=batch(40)), expected, rtol=2e-4, atol=2e-5)


def test_gradients_flow_as_before() -> None:
    net, plain = build("residual"), build("residual", Execution(optimize=False))
    net.fold()
    for each in (net, plain):
        each(data=batch())["end"].sum().backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-3, atol=2e-4)


@torch.no_grad()
def test_weights_that_change_are_seen() -> None:
    net, plain = build("residual"), build("residual", Execution(optimize=False))
    net.fold()
    net(data=batch())
    for each in (net, plain):
        for blob in (*each.parameters(), *each.buffers()):
            blob.mul_(1.25)
        each.layer("c3").layer.weight = torch.nn.Parameter(
            torch.ones_like(each.layer("c3").layer.weight)
        )
    expected, found = plain(data=batch())["end"], net(data=batch())["end"]
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5)


@torch.no_grad()
def test_loaded_weights_are_seen() -> None:
    net, other = build("residual"), build("residual")
    net.fold()
    for blob in other.parameters():
        blob.mul_(-0.5)
    net.load(Weights("other", other.layer_blobs()))
    torch.testing.assert_close(
        net(data=batch())["end"], other(data=batch())["end"], rtol=2e-4, atol=2e-5
    )


@torch.no_grad()
def test_a_copy_of_a_folded_net_runs_and_stands_alone() -> None:
    net = build("residual")
    expected = net(data=batch())["end"]
    net.fold()
    other = copy.deepcopy(net)
    for blob in net.parameters():
        blob.zero_()
    torch.testing.assert_close(other(data=batch())["end"], expected, rtol=2e-4, atol=2e-5)


@torch.no_grad()
def test_a_folded_net_can_move_to_another_type() -> None:
    net = build("plain")
    expected = net(data=batch())["last"]
    net.fold()
    net.double()
    found = net(data=batch().double())["last"]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["plain", "residual", "pooled"])
@torch.no_grad()
def test_bfloat16_stays_close(name: str) -> None:
    plain, fast = build(name), build(name, Execution(precision="BF16"))
    fast.fold()
    expected = plain(data=batch())
    for key, value in fast(data=batch()).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[key], rtol=5e-2, atol=0.1 * value.std().item())


@torch.no_grad()
def test_batch_statistics_are_not_folded() -> None:
    message = parse("\n".join([PICTURE, *NETS["residual"]]), caffe_pb2.NetParameter).message
    net = Net(message, "TRAIN")
    net.fold()
    assert net._inference is not None
    assert not any(isinstance(step.layer, Folded) for step in net._inference.steps)
    assert "Normalisation" in kinds(net)


@torch.no_grad()
def test_a_folded_net_can_be_traced() -> None:
    net = build("residual")
    net.fold()
    expected = net(data=batch())["end"]
    exported = torch.export.export(net, (), {"data": batch()}).module()
    torch.testing.assert_close(exported(data=batch())["end"], expected, rtol=2e-4, atol=2e-5)


def test_packed_weights_take_the_declared_type() -> None:
    net = build("plain", Execution(precision="BF16"))
    net.fold()
    assert net._inference is not None
    packed = [step.layer for step in net._inference.steps]
    assert all(isinstance(each, PackedConvolution | PackedProduct) for each in packed)
    assert {each.dtype for each in packed} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["plain", "residual", "pooled"])
@torch.no_grad()
def test_weights_are_narrowed_once_where_they_are_not_packed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: autocast, which would narrow them in every pass, gives the same bits."""
    net = build(name, Execution(precision="BF16", memory_format="CONTIGUOUS"))
    net.fold()
    found = net(data=batch())
    assert net._inference is not None
    layers = [getattr(s.layer, "convolution", s.layer) for s in net._inference.steps]
    types = {layer.weight.dtype for layer in layers if hasattr(layer, "num_output")}
    assert types == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    monkeypatch.setattr("cortado.netdef.passes.narrow", lambda steps, dtype: list(steps))
    net.fold()
    expected = net(data=batch())
    assert all(torch.equal(found[key], value) for key, value in expected.items())
