"""What holds for every layer type: gradients, shapes, dtypes, round trips, tracing."""

from pathlib import Path

import pytest
import torch
from google.protobuf import text_format

from cortado.layers.base import Layer
from cortado.layers.registry import find, layer_types
from cortado.proto import caffe_pb2
from support.goldens import as_tuple, enter_case_folder
from support.layer_case import LayerCase
from support.layer_cases import CASES

#: Layers that say in their docstring why they cannot be traced.
UNTRACED = {"CTCLoss", "Filter", "HDF5Output", "Python"}
#: Layers that work in float32 only.
SINGLE = {"Python"}

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _case_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_case_folder(tmp_path, monkeypatch)


def layer_classes() -> list[type[Layer]]:
    return [cls for name in layer_types() if issubclass(cls := find(name), Layer)]


def test_every_layer_type_has_a_case() -> None:
    assert {case.type for case in CASES} == {cls.type for cls in layer_classes()}


@pytest.mark.parametrize("cls", layer_classes(), ids=lambda cls: cls.type)
def test_declaration(cls: type[Layer]) -> None:
    assert cls.__doc__
    assert cls.__doc__ != Layer.__doc__
    if cls.message_field:
        assert cls.message_field in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    words = " ".join(cls.__doc__.split())
    if cls.type in UNTRACED:
        assert "cannot be traced" in words
    if not cls.differentiable:
        assert "no gradient" in words


@every_case
def test_arity_allows_the_case(case: LayerCase) -> None:
    cls = find(case.type)
    assert len(case.bottoms) in cls.bottoms
    assert case.tops in cls.tops


@every_case
def test_nothing_is_allocated_before_materialize(case: LayerCase) -> None:
    layer = case.build()
    assert all(blob.is_meta for blob in layer.parameters())
    layer.materialize()
    assert not any(blob.is_meta for blob in (*layer.parameters(), *layer.buffers()))
    assert [name for name, _ in layer.named_parameters(recurse=False)] == [
        blob.name for blob in layer.blobs if blob.learnable
    ]


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tops_have_the_type_of_the_bottoms(case: LayerCase, dtype: torch.dtype) -> None:
    tops = as_tuple(case.ready(dtype)(*case.inputs(dtype)))
    assert all(top.dtype == dtype for top in tops)


@every_case
def test_bottoms_are_left_alone(case: LayerCase) -> None:
    inputs = case.inputs()
    before = [x.clone() for x in inputs]
    case.ready()(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@pytest.mark.filterwarnings("ignore:Input #0 requires gradient and is not a double")
@every_case
def test_gradients_are_those_of_the_function(case: LayerCase) -> None:
    single = case.type in SINGLE
    layer = case.ready(torch.float32 if single else torch.float64)
    cls = find(case.type)
    if not case.tops:
        return
    inputs = case.graded_inputs(torch.float32 if single else torch.float64)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    if not cls.differentiable:
        assert not any(top.requires_grad for top in as_tuple(layer(*inputs)))
        return

    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for name in getattr(layer, "states", ()):
            getattr(layer, name).zero_()
        bottoms = iter(tensors)
        full = [next(bottoms) if x.requires_grad else x for x in inputs]
        return as_tuple(layer(*full))[: case.graded]

    graded = [x for x in inputs if x.requires_grad]
    # The parameters are found in the layer itself; naming them has their gradients checked too.
    eps, atol = (1e-2, 1e-3) if single else (1e-6, 1e-5)
    assert torch.autograd.gradcheck(function, (*graded, *parameters), eps=eps, atol=atol, rtol=2e-3)


@every_case
def test_runs_under_autocast(case: LayerCase) -> None:
    """As with precision BF16: the passes run, and parameters and bottoms get their own type."""
    layer, inputs = case.ready(), case.inputs()
    for index in set(range(len(inputs))) - dict(case.labels).keys():
        inputs[index].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        tops = as_tuple(layer(*inputs))
    graded = [top.float().sum() for top in tops[: case.graded] if top.requires_grad]
    if graded:
        sum(graded).backward()
    wanted = [x for x in (*inputs, *layer.parameters()) if x.grad is not None]
    assert all(x.grad.dtype == torch.float32 and x.grad.isfinite().all() for x in wanted)


@every_case
def test_other_memory_formats_give_the_same(case: LayerCase) -> None:
    expected = as_tuple(case.ready()(*case.inputs()))
    mixed = [
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        for x in case.inputs()
    ]
    found = as_tuple(case.ready()(*mixed))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@every_case
def test_traced_whole_by_compile(case: LayerCase) -> None:
    if case.type in UNTRACED:
        return
    torch.compiler.reset()
    plain, traced = case.ready(), case.ready()
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager")
    first, second = case.inputs(), case.inputs()
    for index in set(range(len(first))) - dict(case.labels).keys():
        first[index].requires_grad_()
        second[index].requires_grad_()
    expected, found = as_tuple(plain(*first)), as_tuple(compiled(*second))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    graded = [top for top in expected[: case.graded] if top.requires_grad]
    if graded:
        sum(top.sum() for top in graded).backward()
        sum(top.sum() for top in found[: case.graded] if top.requires_grad).backward()
        for a, b in zip(second, first, strict=True):
            torch.testing.assert_close(a.grad, b.grad)


@every_case
def test_declared_alike_by_text_and_binary(case: LayerCase) -> None:
    message = case.message()
    text = text_format.Parse(text_format.MessageToString(message), caffe_pb2.LayerParameter())
    binary = caffe_pb2.LayerParameter.FromString(message.SerializeToString())
    assert text == binary == message
    shapes = [[tuple(b.shape) for b in case.build(m).parameters()] for m in (text, binary, message)]
    assert shapes[0] == shapes[1] == shapes[2]


@every_case
def test_the_batch_may_change_between_forwards(case: LayerCase) -> None:
    inputs = case.inputs()
    if len({x.shape[0] for x in inputs}) != 1 or case.type == "HDF5Output":
        return
    fewer = [x[:1] for x in inputs]
    layer = case.ready()
    layer(*inputs)
    for name in getattr(layer, "states", ()):
        getattr(layer, name).zero_()
    for a, b in zip(as_tuple(layer(*fewer)), as_tuple(case.ready()(*fewer)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.gpu
@every_case
def test_cuda_agrees_without_waiting_for_the_device(case: LayerCase) -> None:
    host, device = case.ready(), case.ready().to("cuda")
    first = case.inputs()
    second = [x.to("cuda") for x in first]
    for index in set(range(len(first))) - dict(case.labels).keys():
        first[index].requires_grad_()
        second[index].requires_grad_()
    expected = as_tuple(host(*first))
    device(*second)  # kernels are loaded in the first pass, which waits
    found = as_tuple(case.ready().to("cuda")(*second))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-5)
    graded = [i for i, top in enumerate(expected[: case.graded]) if top.requires_grad]
    if not graded:
        return
    sum(expected[i].sum() for i in graded).backward()
    torch.cuda.set_sync_debug_mode("default" if case.type in UNTRACED else "error")
    try:
        sum(found[i].sum() for i in graded).backward()
        device(*second)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(second, first, strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-4, atol=1e-4)
