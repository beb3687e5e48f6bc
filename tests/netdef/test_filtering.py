"""Nets whose convolutions all run by Winograd's filtering give what torch's give."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cortado.layers.native import winograd_plans
from cortado.netdef import Net
from cortado.netdef.execution import Execution
from cortado.netdef.passes.rectify import RectifiedConvolution
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from support.kernels import needs_compiler


def layer(kind: str, name: str, bottoms: str, top: str, more: str = "") -> str:
    wires = "".join(f' bottom: "{each}"' for each in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}"{wires} top: "{top}" {more} }}'


def conv(name: str, bottom: str, kernel: int = 3, more: str = "") -> str:
    fields = f"num_output: 32 kernel_size: {kernel} pad: {kernel // 2} {more}"
    filler = "weight_filler { type: 'msra' } bias_filler { type: 'gaussian' std: 0.1 }"
    return layer("Convolution", name, bottom, name, f"convolution_param {{ {fields} {filler} }}")


NET = [
    'layer { name: "in" type: "Input" top: "data" top: "label" '
    "input_param { shape { dim: 2 dim: 16 dim: 11 dim: 10 } shape { dim: 2 } } }",
    conv("first", "data"),
    layer("ReLU", "r1", "first", "first"),
    conv("groups", "first", 5, "group: 2"),
    layer("ReLU", "r2", "groups", "apart"),
    conv("shared", "apart"),
    layer("BatchNorm", "norm", "shared", "shared"),
    layer("Scale", "scale", "shared", "shared", "scale_param { bias_term: true }"),
    layer("Eltwise", "sum", "apart shared", "sum"),
    layer("ReLU", "r3", "sum", "sum"),
    conv("seen", "sum"),  # its top is read twice, so that no ReLU joins it
    layer("ReLU", "r4", "seen", "r4"),
    layer("Eltwise", "end", "seen r4", "end"),
    layer("InnerProduct", "fc", "end", "fc",
          "inner_product_param { num_output: 5 weight_filler { type: 'xavier' } }"),
    layer("SoftmaxWithLoss", "loss", "fc label", "loss"),
]  # fmt: skip
PLAIN = Execution(optimize=False, memory_format="CONTIGUOUS")
pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Such small blobs would not be worth it."""
    winograd_plans._planned.cache_clear()
    monkeypatch.setattr(winograd_plans, "_MARGIN", 1e9)
    yield
    winograd_plans._planned.cache_clear()


def build(execution: Execution, phase: str = "TRAIN") -> Net:
    torch.manual_seed(3)
    net = Net(parse("\n".join(NET), caffe_pb2.NetParameter).message, phase, execution=execution)
    if phase == "TEST":
        for buffer in net.buffers():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return net


def batch(height: int = 11) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    data = torch.randn(2, 16, height, 10, generator=generator)
    return {"data": data, "label": torch.tensor([0.0, 4.0])}


def results(net: Net) -> dict[str, torch.Tensor]:
    outputs = net(**batch())
    net.loss.backward()
    found = {name: value.detach() for name, value in outputs.items()} | dict(net.named_buffers())
    return found | {f"{n}.grad": p.grad for n, p in net.named_parameters() if p.grad is not None}


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        near = 2e-5 * max(1.0, value.abs().max().item())
        torch.testing.assert_close(found[key], value, rtol=2e-4, atol=near, msg=key)


@pytest.mark.parametrize("recompute", [(), ("AUTO",), ("first", "groups")])
def test_training_is_unchanged(recompute: tuple[str, ...]) -> None:
    agree(results(build(Execution(recompute=recompute))), results(build(PLAIN)))


def test_a_relu_joins_the_convolution_that_it_alone_reads() -> None:
    steps = build(Execution())._fast_steps
    joined = [step.name for step in steps if isinstance(step.layer, RectifiedConvolution)]
    assert joined == ["first", "groups"]


def test_blobs_are_all_there_and_unchanged() -> None:
    nets = build(Execution()), build(PLAIN)
    for net in nets:
        net.keep_blobs = True
        net(**batch())
    agree(*(net.blobs for net in nets))


@torch.no_grad()
def test_a_folded_net_gives_the_same() -> None:
    net, plain = build(Execution(), "TEST"), build(PLAIN, "TEST")
    net.fold()
    agree(net(**batch()), plain(**batch()))
    kinds = [type(step.layer).__name__ for step in net._inference.steps]  # type: ignore[union-attr]
    assert kinds.count("TiledConvolution") == 4
    assert "BatchNorm" not in kinds


@torch.no_grad()
def test_a_folded_net_takes_other_sizes() -> None:
    message = parse("\n".join(NET[:-2]), caffe_pb2.NetParameter).message
    outputs = []
    for execution in (PLAIN, Execution()):
        torch.manual_seed(3)
        net = Net(message, "TEST", execution=execution)
        if execution is not PLAIN:
            net.fold()
        outputs.append(net(**batch(height=14)))
    agree(outputs[1], outputs[0])
