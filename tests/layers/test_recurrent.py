"""LSTM, RNN and GRU against torch's own, with sequences that begin and end anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode

from cortado.layers.base import Context, Layer
from cortado.layers.registry import find
from cortado.proto import caffe_pb2
from cortado.proto.errors import LayerError
from support.fake_device import DEVICE
from support.goldens import as_tuple

STEPS, BATCH, INPUTS, SIZE = 6, 4, 5, 3


def build(kind: str, options: str, *shapes: tuple[int, ...]) -> Layer:
    text = f'recurrent_param {{ num_output: {SIZE} weight_filler {{ type: "xavier" }} {options} }}'
    message = text_format.Parse(text, caffe_pb2.LayerParameter(type=kind))
    cls = find(kind)
    assert issubclass(cls, Layer)
    layer = cls.from_message(message, Context(shapes))
    layer.materialize()
    return layer


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("options", ["", "bidirectional: true", "num_layers: 2",
                                     "num_layers: 2 bidirectional: true"])  # fmt: skip
def test_padded_sequences_are_those_of_torch_when_packed(kind: str, options: str) -> None:
    layer = build(kind, options, (STEPS, BATCH, INPUTS), (BATCH,))
    two, layers = "bidirectional" in options, 1 + ("num_layers" in options)
    reference = getattr(nn, kind)(INPUTS, SIZE, layers, bidirectional=two)
    for ours, theirs in zip(layer.parameters(), reference.parameters(), strict=True):
        theirs.data.copy_(ours)
    lengths = torch.tensor([6, 1, 4, 3])
    x = torch.randn(STEPS, BATCH, INPUTS, requires_grad=True)
    (y,) = as_tuple(layer(x, lengths.float()))
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0])
    torch.testing.assert_close(y, expected)
    towards = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, *layer.parameters()], towards)
    wanted = torch.autograd.grad(expected, [x, *reference.parameters()], towards)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_an_empty_sequence_gives_zeros(kind: str) -> None:
    layer = build(kind, "bidirectional: true", (STEPS, 2, INPUTS), (2,))
    (y,) = as_tuple(layer(torch.randn(STEPS, 2, INPUTS), torch.tensor([0.0, STEPS])))
    assert not y[:, 0].any()
    assert y[:, 1].all()


def test_the_lengths_must_fit() -> None:
    layer = build("GRU", "", (STEPS, BATCH, INPUTS), (3,))
    with pytest.raises(LayerError, match="one length for each of the 4 sequences"):
        layer(torch.randn(STEPS, BATCH, INPUTS), torch.ones(3))


def begun(*places: tuple[int, int]) -> Tensor:
    cont = torch.ones(STEPS, BATCH)
    for place in places:
        cont[place] = 0
    return cont


@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("first", [0.0, 1.0])
def test_whole_sequences_are_the_same_by_the_fused_kernel(first: float, exposed: bool) -> None:
    """In double there is none, so the steps compute it."""
    shapes = [(STEPS, BATCH, INPUTS), (STEPS, BATCH), *[(1, BATCH, SIZE)] * (2 * exposed)]
    message = text_format.Parse(
        f'type: "LSTM" recurrent_param {{ num_output: {SIZE} expose_hidden: {str(exposed).lower()} '
        'weight_filler { type: "uniform" min: -1 } bias_filler { type: "uniform" } }',
        caffe_pb2.LayerParameter(),
    )
    layer = find("LSTM").from_message(message, Context(tuple(shapes), 1 + 2 * exposed))
    assert isinstance(layer, Layer)
    layer.materialize()
    cont = begun()
    cont[0, :2] = first
    state = [torch.randn(1, BATCH, SIZE) for _ in range(2 * exposed)]
    x = torch.randn(STEPS, BATCH, INPUTS)
    results = []
    for dtype in (torch.float32, torch.float64):
        layer.to(dtype)
        bottoms = [tensor.to(dtype) for tensor in (x, cont, *state)]
        bottoms[0].requires_grad_()
        if not exposed:
            layer.hidden, layer.cell = (torch.full((BATCH, SIZE), 0.3, dtype=dtype) for _ in "hc")
        tops = as_tuple(layer(*bottoms))
        used = "fused" if "Steps" not in type(tops[0].grad_fn).__name__ else "steps"
        assert used == ("fused" if dtype == torch.float32 else "steps")
        last = tops[1:] if exposed else (layer.hidden, layer.cell)
        assert not any(blob.requires_grad for blob in last)
        grads = torch.autograd.grad(tops[0].sin().sum(), [bottoms[0], *layer.parameters()])
        results.append([tops[0], *last, *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_told_that_sequences_are_whole(kind: str) -> None:
    """Then cont counts at the first step only, and the CPU agrees with what it finds out itself."""
    shapes = ((STEPS, BATCH, INPUTS), (STEPS, BATCH))
    told, plain = build(kind, "whole_sequences: true", *shapes), build(kind, "", *shapes)
    plain.load_state_dict(told.state_dict())
    x = torch.randn(STEPS, BATCH, INPUTS)
    y = as_tuple(told(x, begun((0, 1), (3, 2))))[0]
    torch.testing.assert_close(y, as_tuple(plain(x, begun((0, 1))))[0])


def test_whole_sequences_take_no_static_input() -> None:
    shapes = ((STEPS, BATCH, INPUTS), (STEPS, BATCH), (BATCH, 2))
    with pytest.raises(LayerError, match="whole_sequences must be false"):
        build("LSTM", "whole_sequences: true", *shapes)


@pytest.mark.parametrize("places", [[(3, 1)], [(0, 0), (5, 2)]])
def test_sequences_that_begin_later_are_read_apart(places: list[tuple[int, int]]) -> None:
    layer = build("LSTM", "", (STEPS, BATCH, INPUTS), (STEPS, BATCH))
    x = torch.randn(STEPS, BATCH, INPUTS)
    (y,) = as_tuple(layer(x, begun(*places)))
    for step, stream in places:
        layer.reset()
        alone, kept = x[step:, stream : stream + 1], torch.ones(STEPS - step, 1)
        (expected,) = as_tuple(layer(alone, kept))
        torch.testing.assert_close(y[step:, stream : stream + 1], expected)


KERNELS = (torch.lstm, torch.gru, torch.rnn_tanh)


class Told(TorchFunctionMode):
    """Notes what torch's recurrent kernels are told of training."""

    def __init__(self) -> None:
        super().__init__()
        self.training: list[bool] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function in KERNELS:
            self.training.append(args[6])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "options", "shapes"),
    [
        ("GRU", "", [(STEPS, BATCH, INPUTS)]),
        ("LSTM", "num_layers: 2", [(STEPS, BATCH, INPUTS)]),
        ("LSTM", "whole_sequences: true", [(STEPS, BATCH, INPUTS), (STEPS, BATCH)]),
        ("RNN", "whole_sequences: true", [(STEPS, BATCH, INPUTS), (STEPS, BATCH)]),
    ],
)
def test_kernels_know_whether_a_backward_pass_will_follow(
    kind: str, options: str, shapes: list[tuple[int, ...]]
) -> None:
    """cuDNN's refuse one otherwise."""
    with FakeTensorMode(), Told() as told:
        layer = build(kind, options, *shapes)
        layer.materialize(DEVICE)
        bottoms = [torch.empty(shape, device=DEVICE) for shape in shapes]
        for name, buffer in layer.named_buffers():
            setattr(layer, name, buffer.to(DEVICE))
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(parameter.detach().to(DEVICE)))
        layer(*bottoms)
        with torch.no_grad():
            layer(*bottoms)
    assert told.training == [True, False]
