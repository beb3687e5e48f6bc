"""Every rewrite leaves outputs, gradients, statistics and blobs as they were."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from cortado.layers.native import batch_norm, library, lrn, pooling
from cortado.netdef import Net
from cortado.netdef.execution import Execution
from cortado.netdef.passes import drop_unused, fuse_batch_norm, reuse_memory
from cortado.netdef.passes.batch_norm import Normalisation
from cortado.netdef.passes.in_place import Rectifier
from cortado.netdef.passes.recompute import Segment
from cortado.proto import caffe_pb2
from cortado.proto.text import parse

INPUT = (
    'layer { name: "in" type: "Input" top: "data" top: "label" '
    "input_param { shape { dim: 3 dim: 4 dim: 9 dim: 9 } shape { dim: 3 } } }"
)


def layer(kind: str, name: str, bottoms: str, tops: str, more: str = "") -> str:
    wires = "".join(f' bottom: "{each}"' for each in bottoms.split())
    wires += "".join(f' top: "{each}"' for each in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{wires} {more} }}'


def conv(name: str, bottom: str, more: str = "") -> str:
    fields = f"num_output: 4 kernel_size: 3 pad: 1 {more} weight_filler {{ type: 'msra' }}"
    return layer("Convolution", name, bottom, name, f"convolution_param {{ {fields} }}")


def ending(blob: str) -> list[str]:
    fields = "inner_product_param { num_output: 5 weight_filler { type: 'xavier' } }"
    return [
        layer("InnerProduct", "fc", blob, "fc", fields),
        layer("SoftmaxWithLoss", "loss", "fc label", "loss"),
    ]


SCALED = "scale_param { bias_term: true filler { value: 1.5 } bias_filler { value: 0.1 } }"
RESIDUAL = [
    conv("c1", "data", "bias_term: false"),
    layer("BatchNorm", "bn1", "c1", "c1"),
    layer("Scale", "s1", "c1", "c1", SCALED),
    layer("ReLU", "r1", "c1", "c1"),
    conv("c2", "c1", "group: 2"),
    layer("BatchNorm", "bn2", "c2", "b2"),
    layer("Scale", "s2", "b2", "s2"),
    layer("Eltwise", "sum", "c1 s2", "sum"),
    layer("ReLU", "r2", "sum", "sum"),
    layer("LRN", "norm", "sum", "norm", "lrn_param { alpha: 0.5 }"),
    layer("Pooling", "pool", "norm", "pool", "pooling_param { kernel_size: 3 stride: 2 }"),
    layer("ReLU", "r3", "pool", "pool", "relu_param { negative_slope: 0.1 }"),
    layer("InnerProduct", "mid", "pool", "mid", "inner_product_param { num_output: 7 }"),
    # Not over channels: in another layout the same random numbers fall on other places.
    layer("Dropout", "drop", "mid", "mid", "dropout_param { dropout_ratio: 0.3 }"),
    *ending("mid"),
]
SILENCED = [
    conv("c1", "data"),
    layer("ReLU", "r1", "c1", "c1"),
    conv("side", "c1"),
    layer("ReLU", "side_relu", "side", "side"),
    layer("Silence", "quiet", "side", ""),
    *ending("c1"),
]
READ_BEFORE = [  # the blob that the ReLU overwrites is read by another layer first
    conv("c1", "data"),
    layer("TanH", "before", "c1", "t"),
    layer("ReLU", "r1", "c1", "c1"),
    layer("Eltwise", "sum", "c1 t", "sum"),
    *ending("sum"),
]
SIGMOID = [  # its backward reads its top, which a ReLU must not overwrite
    conv("c1", "data"),
    layer("Sigmoid", "sig", "c1", "c1"),
    layer("ReLU", "r1", "c1", "c1"),
    *ending("c1"),
]
CUT = [  # a cut gradient and a shared blob of another shape
    conv("c1", "data"),
    layer("BatchNorm", "bn1", "c1", "c1"),
    layer("Scale", "s1", "c1", "c1", SCALED + " propagate_down: false"),
    *ending("c1"),
]
TWO_HEADS = [  # BatchNorm's top is read twice
    conv("c1", "data"),
    layer("BatchNorm", "bn1", "c1", "b1"),
    layer("Scale", "s1", "b1", "s1", SCALED),
    layer("Eltwise", "sum", "b1 s1", "sum"),
    *ending("sum"),
]
LINEAR = [  # the sum takes the bottom of the BatchNorm itself, and no ReLU follows
    conv("c1", "data"),
    layer("BatchNorm", "bn1", "c1", "b1"),
    layer("Scale", "s1", "b1", "b1", SCALED),
    layer("Eltwise", "sum", "c1 b1", "c1"),
    *ending("c1"),
]
APART = [  # the other bottom of the sum comes after the Scale
    conv("c1", "data"),
    layer("BatchNorm", "bn1", "c1", "c1"),
    layer("Scale", "s1", "c1", "c1", SCALED),
    conv("c2", "data"),
    layer("Eltwise", "sum", "c1 c2", "sum"),
    *ending("sum"),
]
BLOBS = [  # as many channels as the kernels of single blobs want
    conv("c1", "data", "bias_term: false").replace("num_output: 4", "num_output: 16"),
    layer("BatchNorm", "bn1", "c1", "b1"),
    layer("Scale", "s1", "b1", "b1", SCALED),
    layer("ReLU", "r1", "b1", "b1"),
    layer("Pooling", "max", "b1", "max", "pooling_param { kernel_size: 3 stride: 2 }"),
    layer("LRN", "norm", "max", "norm", "lrn_param { alpha: 0.5 }"),
    layer("Pooling", "ave", "norm", "ave", "pooling_param { pool: AVE kernel_size: 2 }"),
    *ending("ave"),
]
NETS = {
    "blobs": BLOBS,
    "linear": LINEAR,
    "apart": APART,
    "residual": RESIDUAL,
    "silenced": SILENCED,
    "read_before": READ_BEFORE,
    "sigmoid": SIGMOID,
    "cut": CUT,
    "two_heads": TWO_HEADS,
}
PLAIN = Execution(optimize=False, memory_format="CONTIGUOUS")
SETTINGS = {
    "optimized": Execution(memory_format="CONTIGUOUS"),
    "channels_last": Execution(optimize=False, memory_format="CHANNELS_LAST"),
    "default": Execution(),
    "recompute_auto": Execution(recompute=("AUTO",)),
    "recompute_named": Execution(recompute=("c*", "bn*", "s*", "r?")),
}


def build(name: str, execution: Execution, phase: str = "TRAIN") -> Net:
    torch.manual_seed(3)
    message = parse("\n".join([INPUT, *NETS[name]]), caffe_pb2.NetParameter).message
    return Net(message, phase, execution=execution)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    data = torch.randn(3, 4, 9, 9, generator=generator)
    return {"data": data, "label": torch.tensor([0.0, 4.0, 2.0])}


def results(net: Net) -> dict[str, torch.Tensor]:
    """Outputs, loss, gradients and statistics after two training passes."""
    found = {}
    for turn in range(2):
        torch.manual_seed(11)
        outputs = net(**batch())
        found |= {f"{turn}/{name}": value.detach() for name, value in outputs.items()}
        net.loss.backward()
    found["loss"] = net.loss.detach()
    found |= {f"{n}.grad": p.grad for n, p in net.named_parameters() if p.grad is not None}
    found |= dict(net.named_buffers())
    return found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", NETS)
def test_training_is_unchanged(name: str, setting: str) -> None:
    expected, found = results(build(name, PLAIN)), results(build(name, SETTINGS[setting]))
    # A branch that ends in Silence has no loss: its parameters have no gradient either way.
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=2e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("setting", ["default", "recompute_auto", "recompute_named"])
@pytest.mark.parametrize("name", ["residual", "linear", "apart", "two_heads"])
def test_training_is_unchanged_by_kernels(
    name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(build(name, PLAIN))
    monkeypatch.setattr(batch_norm, "_FEWEST_VALUES", 1)
    layout = Execution(memory_format="CHANNELS_LAST", recompute=SETTINGS[setting].recompute)
    found = results(build(name, layout))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=2e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("name", NETS)
def test_inference_is_unchanged(name: str) -> None:
    expected, found = build(name, PLAIN, "TEST"), build(name, Execution(), "TEST")
    with torch.no_grad():
        for key, value in expected(**batch()).items():
            torch.testing.assert_close(found(**batch())[key], value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", NETS)
def test_blobs_are_all_there_and_unchanged(name: str) -> None:
    expected, found = build(name, PLAIN), build(name, Execution(recompute=("AUTO",)))
    for net in (expected, found):
        net.keep_blobs = True
        torch.manual_seed(1)
        net(**batch())
    assert expected.blobs.keys() == found.blobs.keys()
    for key, value in expected.blobs.items():
        torch.testing.assert_close(found.blobs[key], value, rtol=2e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("setting", SETTINGS)
def test_inputs_are_not_overwritten(setting: str) -> None:
    net, given = build("residual", SETTINGS[setting]), batch()
    net(**given)
    assert torch.equal(given["data"], batch()["data"])


def test_names_and_saved_weights_are_unchanged() -> None:
    plain, fast = build("residual", PLAIN), build("residual", Execution())
    assert list(plain.state_dict()) == list(fast.state_dict())
    for ours, theirs in zip(plain.layer_blobs(), fast.layer_blobs(), strict=True):
        assert (ours.name, ours.type) == (theirs.name, theirs.type)
        for a, b in zip(ours.blobs, theirs.blobs, strict=True):
            assert a is not None
            assert b is not None
            assert (a.data == b.data).all()


def test_dead_branch_is_dropped() -> None:
    net = build("silenced", PLAIN)
    names = [step.name for step in drop_unused(net.steps, net.outputs)]
    assert names == ["c1", "r1", "fc", "loss"]


def test_batch_norm_takes_scale_and_relu() -> None:
    net = build("residual", PLAIN)
    fused = [s for s in fuse_batch_norm(net.steps, net.outputs) if s.layer is not None]
    norms = [s.layer for s in fused if isinstance(s.layer, Normalisation)]
    # The second Scale has no bias; the sum and the ReLU after it join, too.
    assert [norm.relu for norm in norms] == [True, True]
    assert [len(s.bottoms) for s in fused if isinstance(s.layer, Normalisation)] == [1, 2]
    assert len(fused) == len(net.steps) - 5


def test_frozen_batch_norm_leaves_the_sum() -> None:
    net = build("residual", PLAIN, "TEST")  # so that it can go into the convolution
    fused = fuse_batch_norm(net.steps, net.outputs)
    assert [step.type for step in fused].count("Eltwise") == 1
    assert len(fused) == len(net.steps) - 3


def test_sum_far_from_its_batch_norm_stays() -> None:
    net = build("apart", PLAIN)
    fused = fuse_batch_norm(net.steps, net.outputs)
    assert len(fused) == len(net.steps) - 1


@pytest.mark.parametrize("name", ["cut", "two_heads"])
def test_batch_norm_stays_where_it_must(name: str) -> None:
    net = build(name, PLAIN)
    assert len(fuse_batch_norm(net.steps, net.outputs)) == len(net.steps)


@pytest.mark.parametrize(
    ("name", "expected"), [("residual", 3), ("read_before", 0), ("sigmoid", 0), ("silenced", 2)]
)
def test_relu_overwrites_only_what_nobody_needs(name: str, expected: int) -> None:
    net = build(name, PLAIN)
    steps = reuse_memory(net.steps, net.outputs)
    assert sum(isinstance(step.layer, Rectifier) for step in steps) == expected


def test_segments_are_made() -> None:
    for setting in ("recompute_auto", "recompute_named"):
        net = build("residual", SETTINGS[setting])
        assert any(isinstance(step.layer, Segment) for step in net._fast_steps)


def test_compiled_net_gives_the_same() -> None:
    expected, found = results(build("read_before", PLAIN)), Execution(compile=True)
    for key, value in results(build("read_before", found)).items():
        torch.testing.assert_close(value, expected[key], rtol=2e-4, atol=2e-5, msg=key)


def test_training_in_bfloat16_is_as_close_with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs are bfloat16 for kernels as for torch's operations, parameters' gradients float32."""
    monkeypatch.setattr(batch_norm, "_FEWEST_VALUES", 1)
    exact = results(build("blobs", PLAIN))
    families, taken = (batch_norm, pooling, lrn), set()

    def watched(family: ModuleType) -> Callable[..., object]:
        plan = family.plan

        def watching(x: torch.Tensor, *more: object) -> object:
            found = plan(x, *more)
            taken.add((family, x.dtype, found is not None))
            return found

        return watching

    for family in families:
        monkeypatch.setattr(family, "plan", watched(family))
    fast = results(build("blobs", Execution(precision="BF16")))
    assert taken == {(each, torch.bfloat16, not library.obstacle()) for each in families}
    for family in families:
        monkeypatch.setattr(family, "plan", lambda *_: None)
    slow = results(build("blobs", Execution(precision="BF16")))
    for key, value in exact.items():
        assert fast[key].dtype == slow[key].dtype == torch.float32
        errors = [((found[key] - value).norm() / value.norm()).item() for found in (fast, slow)]
        assert errors[0] < 1.5 * errors[1] + 1e-3, key


@pytest.mark.parametrize("name", ["residual", "silenced"])
def test_bfloat16_stays_close(name: str) -> None:
    plain, fast = build(name, PLAIN, "TEST"), build(name, Execution(precision="BF16"), "TEST")
    with torch.no_grad():
        loss, other = plain(**batch())["loss"], fast(**batch())["loss"]
    assert other.dtype == torch.float32
    torch.testing.assert_close(other, loss, rtol=5e-2, atol=5e-2)
