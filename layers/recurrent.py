"""RNN and LSTM of Caffe: bottoms, blobs, and the state that is carried over."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import Arity, Context, Layer, Shape, between
from .fillers import Filler
from .linear import linear
from .losses import widened


class Recurrent(Layer):
    """Base of RNN and LSTM: bottoms, blobs of the input, and the state between forwards."""

    message_field = "recurrent_param"
    bottoms: ClassVar[Arity] = between(2, 5)
    tops: ClassVar[Arity] = between(1, 3)
    #: Names of the state blobs: read first and carried over, or exposed.
    states: ClassVar[tuple[str, ...]] = ("hidden",)
    #: Rows of the input weights for each output.
    gates: ClassVar[int] = 1

    #: Whether sequences begin at the first step only, so that fused kernels may read them.
    whole_sequences: bool = False

    weight_x: Tensor
    weight_h: Tensor
    weight_static: Tensor
    bias: Tensor

    def __init__(
        self,
        inputs: int,
        num_output: int,
        *,
        static_inputs: int = 0,
        expose_hidden: bool = False,
        weight_filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.num_output = num_output
        self.static_inputs = static_inputs
        self.expose_hidden = expose_hidden
        rows = self.gates * num_output
        self.add_blob("weight_x", (rows, inputs), weight_filler)
        self.add_blob("bias", (rows,), bias_filler)
        if static_inputs:
            self.add_blob("weight_static", (rows, static_inputs), weight_filler)
        self.add_blob("weight_h", (rows, num_output), weight_filler)
        for name in self.states:
            self.register_buffer(name, torch.empty(0), persistent=False)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        param = message.recurrent_param
        shapes = context.shapes
        if param.num_output == 0:
            raise LayerError("num_output must be given and positive", "recurrent_param.num_output")
        if param.debug_info:
            raise LayerError(
                "there is no unrolled net here to log: debug_info must be false",
                "recurrent_param.debug_info",
            )
        for name in ("num_layers", "bidirectional", "dropout_ratio"):
            if param.HasField(name):
                raise LayerError(
                    f"{name} needs an LSTM or GRU of whole sequences, whose bottoms are x, or x "
                    "and lengths (N)",
                    f"recurrent_param.{name}",
                )
        exposed = len(cls.states) if param.expose_hidden else 0
        static = len(shapes) - 2 - exposed
        if static not in (0, 1):
            raise LayerError(
                f"there must be {2 + exposed} bottoms, or {3 + exposed} with a static input, "
                f"got {len(shapes)}",
                "bottom",
            )
        if context.num_tops != 1 + exposed:
            raise LayerError(f"there must be {1 + exposed} tops, got {context.num_tops}", "top")
        if len(shapes[0]) < 2:
            raise LayerError(
                f"the first bottom must have at least 2 axes (T, N, ...), got shape {shapes[0]}",
                "bottom.0",
            )
        if static and param.whole_sequences:
            raise LayerError(
                "fused kernels take no static input: whole_sequences must be false",
                "recurrent_param.whole_sequences",
            )
        layer = cls(
            prod(shapes[0][2:]),
            param.num_output,
            static_inputs=prod(shapes[2][1:]) if static else 0,
            expose_hidden=param.expose_hidden,
            weight_filler=fillers.from_message(
                param.weight_filler, "recurrent_param.weight_filler"
            ),
            bias_filler=fillers.from_message(param.bias_filler, "recurrent_param.bias_filler"),
        )
        layer.whole_sequences = param.whole_sequences
        return layer

    def forward(self, x: Tensor, cont: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        self.check_shapes(x.shape, cont.shape, *(blob.shape for blob in others))
        x = widened(x.reshape(*x.shape[:2], -1))
        offset, exposed = self.bias, others
        if self.static_inputs:
            static, *rest = others
            exposed = tuple(rest)
            static = static.reshape(x.shape[1], -1)
            offset = linear(static, self.weight_static, self.bias).to(x.dtype)
        state = self._initial(exposed, x)
        output, *last = self.steps(x, offset, cont.to(x.dtype).unsqueeze(2), *state)
        if self.expose_hidden:
            return (output, *(blob.unsqueeze(0) for blob in last))
        self._carry(last)
        return (output,)

    def check_shapes(self, *bottoms: Shape) -> None:
        x, cont, *exposed = bottoms
        if len(x) < 2 or cont != x[:2] or prod(x[2:]) != self.inputs:
            raise LayerError(
                f"the bottoms must have shapes (T, N, ...) with {self.inputs} inputs and (T, N), "
                f"got {tuple(x)} and {tuple(cont)}",
                "bottom.1",
            )
        batch = x[1]
        if self.static_inputs:
            static = exposed.pop(0)
            if static[:1] != (batch,) or prod(static[1:]) != self.static_inputs:
                raise LayerError(
                    f"the static input must have shape ({batch}, ...) with {self.static_inputs} "
                    f"inputs, got {tuple(static)}",
                    "bottom.2",
                )
        state = (1, batch, self.num_output)
        for index, shape in enumerate(exposed, len(bottoms) - len(exposed)):
            if shape != state:
                raise LayerError(
                    f"an initial state must have shape {state}, got {tuple(shape)}",
                    f"bottom.{index}",
                )

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_shapes(*bottoms)
        steps, batch = bottoms[0][:2]
        exposed = len(self.states) if self.expose_hidden else 0
        return [(steps, batch, self.num_output), *[(1, batch, self.num_output)] * exposed]

    def steps(self, x: Tensor, offset: Tensor, cont: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The output ``(T, N, num_output)`` and the last state.

        ``x`` is ``(T, N, inputs)``, ``cont`` ``(T, N, 1)``; ``offset``, once for all steps, has the
        bias and the static input.
        """
        raise NotImplementedError

    def _begin(self, cont: Tensor, *state: Tensor) -> list[Tensor]:
        """The state as fused kernels take it: masked by the first ``cont``, ``(1, N, D)``."""
        return [(blob * cont[0]).unsqueeze(0) for blob in state]

    def reset(self) -> None:
        """Forget the state, so that the next forward starts from zeros."""
        for name in self.states:
            getattr(self, name).zero_()

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        steps, batch = bottoms[0][:2]
        weights = {blob.name: self.blob(index) for index, blob in enumerate(self.blobs)}
        static = weights.pop("weight_static", None)
        each = sum(weight.numel() for weight in weights.values() if weight.dim() == 2)
        return batch * (steps * each + (0 if static is None else static.numel()))

    def _initial(self, exposed: tuple[Tensor, ...], x: Tensor) -> list[Tensor]:
        """The state before the first step, ``(N, num_output)`` each, without gradient."""
        shape = (x.shape[1], self.num_output)
        if self.expose_hidden:
            return [blob.detach()[0] for blob in exposed]
        found = [getattr(self, name) for name in self.states]
        same = all(
            blob.shape == shape and blob.dtype == x.dtype and blob.device == x.device
            for blob in found
        )
        return [blob.clone() if same else x.new_zeros(shape) for blob in found]

    @torch.no_grad()
    def _carry(self, last: list[Tensor]) -> None:
        """Keep the state for the next forward."""
        for name, blob in zip(self.states, last, strict=True):
            setattr(self, name, blob.detach())


def told_whole(cont: Tensor) -> Tensor:
    """``cont`` of sequences that begin at the first step only."""
    return torch.cat((cont[:1], torch.ones_like(cont[1:])))
