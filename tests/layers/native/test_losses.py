"""The losses in C against torch's operations in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from torch import Tensor

from cortado.layers.base import Context, Layer
from cortado.layers.native import element_losses, softmax_loss
from cortado.layers.registry import find
from cortado.proto import caffe_pb2
from support.kernels import needs_compiler


def build(kind: str, text: str, *shapes: tuple[int, ...]) -> Layer:
    message = text_format.Parse(text, caffe_pb2.LayerParameter(type=kind))
    layer = find(kind).from_message(message, Context(shapes, 1))
    assert isinstance(layer, Layer)
    layer.materialize()
    return layer


def agree(
    layer: Callable[..., Tensor], inputs: list[Tensor], graded: int = 1, twice: bool = True
) -> None:
    """In float32 by the kernel, in float64 by torch."""
    results = []
    for dtype in (torch.float32, torch.float64):
        blobs = [blob.detach().to(dtype) for blob in inputs]
        leaves = [blob.requires_grad_() for blob in blobs[:graded]]
        loss = layer(*blobs)
        name = type(loss.grad_fn).__name__
        assert (name == "_LossBackward") == (dtype == torch.float32), name
        results.append([loss.detach(), *torch.autograd.grad(3 * loss, leaves)])
        if twice:
            once = torch.autograd.grad(layer(*blobs), leaves, create_graph=True)
            results[-1] += [*once, *torch.autograd.grad(sum(x.sin().sum() for x in once), leaves)]
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=3e-6, atol=2e-7)


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 10), (7, 33), (300, 1000)])
@pytest.mark.parametrize(
    "text",
    ["", "loss_param { ignore_label: 0 }", "loss_param { normalization: BATCH_SIZE }",
     "loss_param { normalization: NONE ignore_label: 2 }",
     "loss_param { normalization: FULL ignore_label: 0 }"],
)  # fmt: skip
def test_softmax_with_loss(shape: tuple[int, int], text: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(shape[1], shape[:1]).float()
    scores = torch.randn(shape) * 5
    agree(build("SoftmaxWithLoss", text, shape, shape[:1]), [scores, labels], twice=False)


@needs_compiler
def test_softmax_loss_twice() -> None:
    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        found = softmax_loss.loss(scores, labels, 2, 5.0)
        if found is None:
            found = F.cross_entropy(scores, labels.long(), ignore_index=2, reduction="sum") / 5
        return found

    agree(loss, [torch.randn(7, 20), torch.tensor([0.0, 2, 3, 19, 2, 5, 6])])


@needs_compiler
def test_improbable_labels_lose_what_caffe_says() -> None:
    """Probabilities are not below the smallest normal float."""
    scores = torch.tensor([[0.0, 200.0], [0.0, -1e30]], requires_grad=True)
    loss = softmax_loss.loss(scores, torch.tensor([0.0, 1.0]), None, 1.0)
    assert loss is not None
    floor = torch.tensor(torch.finfo(torch.float32).tiny).log()
    torch.testing.assert_close(loss.detach(), -2 * floor)
    (grad,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_lose_nan(bad: float) -> None:
    scores = torch.randn(3, 40)
    scores[1, 20] = bad
    loss = softmax_loss.loss(scores, torch.zeros(3), None, 1.0)
    assert loss is not None
    assert loss.isnan()


@needs_compiler
@pytest.mark.parametrize("label", [7.0, -1.0, 1e20, float("nan")])
def test_labels_that_are_no_class_are_left_to_torch(label: float) -> None:
    labels = torch.tensor([0.0, label, 1.0])
    assert softmax_loss.loss(torch.randn(3, 7), labels, None, 1.0) is None
    if label == -1:
        assert softmax_loss.loss(torch.randn(3, 7), labels, -1, None) is not None


@needs_compiler
@pytest.mark.parametrize("shape", [(1,), (3, 5), (16, 16), (7, 4099), (64, 1024)])
def test_losses_of_elements(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(shape) * 3, torch.randn(shape) * 2
    agree(build("SigmoidCrossEntropyLoss", "", shape, shape), [a * 10, b.sigmoid()])
    agree(build("SmoothL1Loss", "", shape, shape), [a, b], 2)
    agree(build("SmoothL1Loss", "smooth_l1_loss_param { beta: 0.3 }", shape, shape), [a, b], 1)


@needs_compiler
def test_losses_of_elements_at_the_edges() -> None:
    x = torch.tensor([0.0, 100, -100, 1e30, -1e30, 89, -89, 1e-8])
    for target in (0.0, 1.0, 0.5):
        t = torch.full_like(x, target)
        for index in range(len(x)):
            one = slice(index, index + 1)
            found = element_losses.loss("sigmoid", x[one], t[one], 1.0)
            assert found is not None
            right = F.binary_cross_entropy_with_logits(x[one], t[one], reduction="sum")
            torch.testing.assert_close(found, right, atol=1e-37, rtol=3e-7)
    nan = torch.tensor([1.0, float("nan")])
    for name in ("sigmoid", "smooth_l1"):
        found = element_losses.loss(name, nan, torch.zeros(2), 1.0, 1.0)
        assert found is not None
        assert found.isnan()
    equal = torch.ones(5, requires_grad=True)
    found = element_losses.loss("smooth_l1", equal, equal.detach(), 1.0, 1.0)
    assert found is not None
    assert not torch.autograd.grad(found, equal)[0].any()


@needs_compiler
def test_threads_make_no_difference() -> None:
    a, b = torch.randn(100, 1000), torch.rand(100, 1000)
    before = torch.get_num_threads()
    found = set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        labels = b[:, 0] * 999
        pairs = (element_losses.loss("sigmoid", a, b, 0.5), softmax_loss.loss(a, labels, None, 1.0))
        found.add(tuple(float(each) for each in pairs if each is not None))
    torch.set_num_threads(before)
    assert len(found) == 1
    assert len(found.pop()) == 2
