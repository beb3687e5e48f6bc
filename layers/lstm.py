"""LSTM, and LSTMUnit, one of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, between, exactly
from .native import recurrent
from .recurrent import Recurrent, told_whole
from .recurrent_steps import LSTMSteps, keeps_for_backward, run
from .registry import register
from .whole_sequences import WholeSequences


@register("LSTM")
class LSTM(Recurrent):
    """Long short-term memory, with gates i, f, o and candidate g in this order.

    (i, f, o, g)_t = W_x x_t + W_s s + W_h (cont_t h_{t-1}) + b, squashed by sigmoid (g by tanh);
    c_t = cont_t f c_{t-1} + i g; h_t = o tanh(c_t). bottoms: x ``(T, N, ...)``, T steps of N
    streams; cont ``(T, N)``, 0 where a sequence begins and 1 within; maybe a static input s
    ``(N, ...)``. top: h ``(T, N, num_output)``. The state (h, c) is carried from one forward to the
    next, starting with zeros, and gradients stop there. With ``expose_hidden`` two further bottoms
    give h_0 and c_0, and two further tops h_T and c_T, ``(1, N, num_output)``, all without
    gradient. Blobs: ``weight_x``, ``bias``, with a static input ``weight_static``, then
    ``weight_h``. ``debug_info`` is refused. Hochreiter and Schmidhuber 1997.

    Without kernels of our own (a GPU, few or narrow sequences, no C compiler) torch's fused kernel
    reads sequences that all begin at the first step of a forward: on the CPU that is found out, for
    float32 without a static input; ``whole_sequences`` says it for all devices, as a GPU would have
    to be waited for, and cont of later steps is then not looked at.

    Beyond Caffe: with x as its only bottom the layer reads whole sequences, each from a state of
    zeros, by torch's fused kernels; a second bottom ``(N)`` may hold their lengths, up to T: the
    top is zero after the end of a sequence. Then ``num_layers`` (1) may lie upon each other with
    dropout of ``dropout_ratio`` between them, and with ``bidirectional`` a second set of weights
    reads each sequence backward: the top is ``(T, N, 2 num_output)``, forward first. The blobs and
    the order of the gates (i, f, g, o) are then those of torch.nn.LSTM.

    Torch: ``nn.LSTM`` has another order of gates (i, f, g, o), two biases, and no ``cont``.
    """

    bottoms = between(1, 5)
    states = ("hidden", "cell")
    gates = 4

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        if len(context.shapes) == 1 or (len(context.shapes) == 2 and len(context.shapes[1]) == 1):
            return WholeLSTM.from_message(message, context)
        return super().from_message(message, context)

    def steps(self, x: Tensor, offset: Tensor, cont: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        if not recurrent.suits(x, offset, cont, self.weight_x, self.weight_h):
            if self.whole_sequences or (not self.static_inputs and _begins_at_once(x, cont)):
                return self._fused(x, cont, *state)
        elif self.whole_sequences:
            cont = told_whole(cont)
        return run(LSTMSteps, x, self.weight_x, offset, cont, self.weight_h, *state)

    def _fused(
        self, x: Tensor, cont: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """By torch's kernel, whose gates are in the order i, f, g, o."""
        weights = [_exchanged(blob) for blob in (self.weight_x, self.weight_h, self.bias)]
        weights.append(torch.zeros_like(self.bias))
        start = self._begin(cont, hidden, cell)
        arguments = (True, 1, 0.0, keeps_for_backward(), False, False)
        output, hidden, cell = torch.lstm(x, start, weights, *arguments)
        # Kernels of fewer bits must not change the type of what is carried over.
        return output.to(x.dtype), hidden[0].detach().to(x.dtype), cell[0].detach().to(x.dtype)


def _begins_at_once(x: Tensor, cont: Tensor) -> bool:
    """Whether torch has a fused kernel that is faster, and no sequence begins after the first step.

    Only the CPU is asked: elsewhere the answer would have to be waited for, a traced graph cannot
    depend on it, and a tensor without memory (a class of its own, by which memory is predicted) has
    none.
    """
    if type(x) is not Tensor:
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    if not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        return False
    first, later = cont[0], cont[1:]
    return bool(((first == 0) | (first == 1)).all()) and bool((later == 1).all())


def _exchanged(blob: Tensor) -> Tensor:
    enter, forget, out, value = blob.chunk(4)
    return torch.cat((enter, forget, value, out))


class WholeLSTM(WholeSequences):
    """The LSTM of whole sequences."""

    gates = 4

    def kernel(
        self, x: Tensor, state: Tensor, weights: list[Tensor], arguments: tuple[Any, ...]
    ) -> Tensor:
        y: Tensor = torch.lstm(x, (state, state), weights, *arguments)[0]
        return y


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM without weights.

    bottoms: c_{t-1} ``(1, N, D)``, gate inputs ``(1, N, 4 D)`` in the order i, f, o, g, cont
    ``(1, N)`` -> tops c_t and h_t ``(1, N, D)``; formulas as in LSTM. cont gets no gradient.

    Torch: ``nn.LSTMCell`` without its weights.
    """

    bottoms = exactly(3)
    tops = exactly(2)

    def forward(self, cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        self.check_shapes(cell.shape, gates.shape, cont.shape)
        enter, forget, out, value = gates.split(cell.shape[2], 2)
        kept = _Gate.apply(forget, cont.detach().unsqueeze(2)) * cell
        cell = torch.addcmul(kept, enter.sigmoid(), value.tanh())
        return cell, out.sigmoid() * cell.tanh()

    def check_shapes(self, *bottoms: Shape) -> None:
        cell, gates, cont = bottoms
        if len(cell) != 3 or cell[0] != 1 or gates != (1, cell[1], 4 * cell[2]):
            raise LayerError(
                "the first two bottoms must have shapes (1, N, D) and (1, N, 4 D), got "
                f"{tuple(cell)} and {tuple(gates)}",
                "bottom",
            )
        if cont != cell[:2]:
            raise LayerError(
                f"cont must have shape {tuple(cell[:2])}, got {tuple(cont)}", "bottom.2"
            )

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_shapes(*bottoms)
        return bottoms[:1] * 2


class _Gate(torch.autograd.Function):
    """cont * sigmoid(x), whose gradient in Caffe is that of a sigmoid of this value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor) -> Tensor:
        gate = x.sigmoid() * cont
        ctx.save_for_backward(gate)
        return gate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gate,) = ctx.saved_tensors
        return grads[0] * gate * (1 - gate), None
