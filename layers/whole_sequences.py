"""GRU and the LSTM of whole sequences: several layers and both directions, by torch's kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import TRAIN, Context, LabelRange, Layer, Shape
from .fillers import Filler
from .recurrent_steps import keeps_for_backward
from .registry import register


class WholeSequences(Layer):
    """Base of recurrent layers that read each sequence from its start, a state of zeros."""

    message_field = "recurrent_param"
    #: Rows of the weights for each output.
    gates: ClassVar[int] = 1

    def __init__(
        self,
        inputs: int,
        num_output: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout_ratio: float = 0.0,
        weight_filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.num_output = num_output
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout_ratio = dropout_ratio
        bound = num_output**-0.5
        usual = fillers.named("uniform", min=-bound, max=bound)
        rows = self.gates * num_output
        for place, width in self._places():
            self.add_blob(f"weight_ih_{place}", (rows, width), weight_filler or usual)
            self.add_blob(f"weight_hh_{place}", (rows, num_output), weight_filler or usual)
            self.add_blob(f"bias_ih_{place}", (rows,), bias_filler or usual)
            self.add_blob(f"bias_hh_{place}", (rows,), bias_filler or usual)

    def _places(self) -> Iterator[tuple[str, int]]:
        """Each layer and direction, as torch calls it, and the width of what it reads."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.num_layers):
            width = self.num_output * len(directions) if layer else self.inputs
            for direction in directions:
                yield f"l{layer}{direction}", width

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        param = message.recurrent_param
        shape = context.shapes[0]
        for name in ("expose_hidden", "debug_info", "whole_sequences"):
            if getattr(param, name):
                raise LayerError(
                    f"{name} must not be given where there is no cont",
                    f"recurrent_param.{name}",
                )
        for name in ("num_output", "num_layers"):
            if getattr(param, name) < 1:
                raise LayerError(f"{name} must be given and positive", f"recurrent_param.{name}")
        if not 0 <= param.dropout_ratio < 1:
            raise LayerError(
                f"dropout_ratio must be at least 0 and below 1, got {param.dropout_ratio:g}",
                "recurrent_param.dropout_ratio",
            )
        if len(shape) < 2:
            raise LayerError(
                f"the bottom must have at least 2 axes (T, N, ...), got shape {shape}", "bottom"
            )
        given = {
            name: fillers.from_message(getattr(param, name), f"recurrent_param.{name}")
            for name in ("weight_filler", "bias_filler")
            if param.HasField(name)
        }
        return cls(
            prod(shape[2:]),
            param.num_output,
            num_layers=param.num_layers,
            bidirectional=param.bidirectional,
            dropout_ratio=param.dropout_ratio if context.phase == TRAIN else 0.0,
            **given,
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.check_shapes(*(each.shape for each in (x, lengths) if each is not None))
        x = x.reshape(*x.shape[:2], -1)
        if lengths is None:
            return self._read(x)
        ends = lengths.detach().reshape(1, -1).long().clamp(max=x.shape[0])
        steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
        within = steps < ends
        if self.bidirectional:
            y = self._turning(x, torch.where(within, ends - 1 - steps, steps))
        else:
            y = self._read(x)
        return torch.where(within.unsqueeze(2), y, 0)

    def check_shapes(self, *bottoms: Shape) -> None:
        x, *lengths = bottoms
        if len(x) < 2 or prod(x[2:]) != self.inputs:
            raise LayerError(
                f"the bottom must have shape (T, N, ...) with {self.inputs} inputs, got {tuple(x)}",
                "bottom",
            )
        if lengths and prod(lengths[0]) != x[1]:
            raise LayerError(
                f"there must be one length for each of the {x[1]} sequences, got shape "
                f"{tuple(lengths[0])}",
                "bottom.1",
            )

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_shapes(*bottoms)
        return [(*bottoms[0][:2], self.num_output * (1 + self.bidirectional))]

    def _read(self, x: Tensor) -> Tensor:
        """All layers and directions at once, over sequences that fill all steps."""
        weights = [self.blob(index) for index in range(len(self.blobs))]
        return self._run(x, weights, self.num_layers, self.bidirectional)

    def _turning(self, x: Tensor, places: Tensor) -> Tensor:
        """Both directions, layer by layer; ``places`` ``(T, N)`` turn each sequence around.

        So each sequence is read backward from its own last step, and nothing waits for the lengths.
        """
        places = places.unsqueeze(2)
        weights = [self.blob(index) for index in range(len(self.blobs))]
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout_ratio)
            forth, back = (weights[4 * i : 4 * i + 4] for i in (2 * layer, 2 * layer + 1))
            turned = x.gather(0, places.expand_as(x))
            turned = self._run(turned, back)
            x = torch.cat((self._run(x, forth), turned.gather(0, places.expand_as(turned))), 2)
        return x

    def _run(
        self, x: Tensor, weights: list[Tensor], layers: int = 1, bidirectional: bool = False
    ) -> Tensor:
        """Torch's kernel, from a state of zeros."""
        state = x.new_zeros(layers * (1 + bidirectional), x.shape[1], self.num_output)
        dropout = self.dropout_ratio if layers > 1 else 0.0
        training = dropout > 0 or keeps_for_backward()
        arguments = (True, layers, dropout, training, bidirectional, False)
        return self.kernel(x, state, weights, arguments)

    def kernel(
        self, x: Tensor, state: Tensor, weights: list[Tensor], arguments: tuple[Any, ...]
    ) -> Tensor:
        """The output ``(T, N, outputs)`` of torch's function, from ``state`` ``(sets, N, D)``."""
        raise NotImplementedError

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        return LabelRange(1, bottoms[0][0] + 1) if len(bottoms) == 2 else None

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        matrices = (self.blob(index) for index in range(len(self.blobs)))
        return prod(bottoms[0][:2]) * sum(m.numel() for m in matrices if m.dim() == 2)


@register("GRU")
class GRU(WholeSequences):
    """Gated recurrent unit, with gates r, z and candidate n in this order.

    (r, z)_t = sigmoid(W x_t + b + U h_{t-1} + c), n_t = tanh(W_n x_t + b_n + r_t (U_n h_{t-1} +
    c_n)), h_t = (1 - z_t) n_t + z_t h_{t-1}, starting from zeros. bottoms: x ``(T, N, ...)``, T
    steps of N whole sequences, and maybe their lengths ``(N)``, T for all otherwise -> top h
    ``(T, N, num_output)``, zeros after the end of a sequence. ``num_layers`` (1) lie upon each
    other, with dropout of ``dropout_ratio`` (0) between them in TRAIN; with ``bidirectional`` a
    second set of weights reads each sequence backward, and the top is ``(T, N, 2 num_output)``,
    forward first.
    Blobs, as in torch.nn.GRU: ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0``,
    the same with ``_reverse``, then ``l1`` …; uniform within 1 / sqrt(num_output) unless the
    fillers say otherwise. ``expose_hidden`` and ``debug_info`` are refused. Cho et al. 2014.

    Torch: ``nn.GRU``, the same, without an initial state.
    """

    gates = 3

    def kernel(
        self, x: Tensor, state: Tensor, weights: list[Tensor], arguments: tuple[Any, ...]
    ) -> Tensor:
        y: Tensor = torch.gru(x, state, weights, *arguments)[0]
        return y
