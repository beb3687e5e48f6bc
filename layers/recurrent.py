"""RNN and LSTM: what they share, and the passes through time.

The input is projected for all steps in one product, the steps then do one product each with as few
further operations as possible, and backward collects the gates' gradients of all steps for one
product a weight. Where sequences begin is data (``cont``), so nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import Arity, Context, Layer, Shape, between
from .fillers import Filler
from .linear import linear


class Recurrent(Layer):
    """Base of RNN and LSTM: bottoms, blobs of the input, and the state between forwards."""

    message_field = "recurrent_param"
    bottoms: ClassVar[Arity] = between(2, 5)
    tops: ClassVar[Arity] = between(1, 3)
    #: Names of the state blobs: read first and carried over, or exposed.
    states: ClassVar[tuple[str, ...]] = ("hidden",)
    #: Rows of the input weights for each output.
    gates: ClassVar[int] = 1

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
        return cls(
            prod(shapes[0][2:]),
            param.num_output,
            static_inputs=prod(shapes[2][1:]) if static else 0,
            expose_hidden=param.expose_hidden,
            weight_filler=fillers.from_message(
                param.weight_filler, "recurrent_param.weight_filler"
            ),
            bias_filler=fillers.from_message(param.bias_filler, "recurrent_param.bias_filler"),
        )

    def forward(self, x: Tensor, cont: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        if x.dim() < 2 or cont.shape != x.shape[:2] or prod(x.shape[2:]) != self.inputs:
            raise LayerError(
                f"the bottoms must have shapes (T, N, ...) with {self.inputs} inputs and (T, N), "
                f"got {tuple(x.shape)} and {tuple(cont.shape)}",
                "bottom.1",
            )
        batch = x.shape[1]
        projected = linear(x.flatten(2), self.weight_x, self.bias)
        exposed = others
        if self.static_inputs:
            static, *rest = others
            exposed = tuple(rest)
            if static.shape[:1] != x.shape[1:2] or static.numel() != batch * self.static_inputs:
                raise LayerError(
                    f"the static input must have shape ({batch}, ...) with {self.static_inputs} "
                    f"inputs, got {tuple(static.shape)}",
                    "bottom.2",
                )
            projected = projected + torch.mm(static.flatten(1), self.weight_static.t())
        state = self._initial(exposed, projected)
        output, *last = self.steps(projected, cont.to(projected.dtype).unsqueeze(2), *state)
        if self.expose_hidden:
            return (output, *(blob.unsqueeze(0) for blob in last))
        self._carry(last)
        return (output,)

    def steps(self, projected: Tensor, cont: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The output ``(T, N, num_output)`` and the last state, from the projected input."""
        raise NotImplementedError

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

    def _initial(self, exposed: tuple[Tensor, ...], projected: Tensor) -> list[Tensor]:
        """The state before the first step, ``(N, num_output)`` each, without gradient."""
        shape = (projected.shape[1], self.num_output)
        if self.expose_hidden:
            for index, blob in enumerate(exposed):
                if blob.shape != (1, *shape):
                    raise LayerError(
                        f"an initial state must have shape {(1, *shape)}, got {tuple(blob.shape)}",
                        f"bottom.{2 + bool(self.static_inputs) + index}",
                    )
            return [blob.detach()[0] for blob in exposed]
        found = [getattr(self, name) for name in self.states]
        same = all(
            blob.shape == shape
            and blob.dtype == projected.dtype
            and blob.device == projected.device
            for blob in found
        )
        return [blob.clone() if same else projected.new_zeros(shape) for blob in found]

    @torch.no_grad()
    def _carry(self, last: list[Tensor]) -> None:
        """Keep the state for the next forward."""
        for name, blob in zip(self.states, last, strict=True):
            setattr(self, name, blob.detach())


class TanhSteps(torch.autograd.Function):
    """h_t = tanh(projected_t + W (cont_t h_{t-1})) for all t, and h_T without gradient."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, cont: Tensor, weight: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        turned = weight.t()
        before, after = [], []
        for step in range(projected.shape[0]):
            before.append(hidden * cont[step])
            hidden = torch.addmm(projected[step], before[-1], turned).tanh_()
            after.append(hidden)
        output = torch.stack(after)
        ctx.save_for_backward(output, torch.stack(before), cont, weight)
        last = hidden.clone()
        ctx.mark_non_differentiable(last)
        return output, last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        output, before, cont, weight = ctx.saved_tensors
        slope = torch.addcmul(torch.ones_like(output[:1]), output, output, value=-1)
        inner: list[Tensor] = []
        grad = grads[0][-1]
        for step in range(output.shape[0] - 1, -1, -1):
            inner.append(grad * slope[step])
            if step:
                back = torch.mm(inner[-1], weight)
                grad = torch.addcmul(grads[0][step - 1], back, cont[step])
        gates = torch.stack(inner[::-1])
        return gates, None, torch.mm(gates.flatten(0, 1).t(), before.flatten(0, 1)), None


class LSTMSteps(torch.autograd.Function):
    """All steps of an LSTM from its projected input; h and c of the last without gradient.

    As in Caffe, a fractional cont scales h and the forget gate, and the gate's gradient takes the
    scaled gate for a sigmoid.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, cont: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        turned = weight.t()
        size = hidden.shape[1]
        before, gates, cells, after = [], [], [cell], []
        for step in range(projected.shape[0]):
            before.append(hidden * cont[step])
            gate = torch.addmm(projected[step], before[-1], turned)
            gate[:, : 3 * size].sigmoid_()
            gate[:, 3 * size :].tanh_()
            enter, forget, out, value = gate.split(size, 1)
            forget.mul_(cont[step])
            cell = torch.addcmul(forget * cell, enter, value)
            hidden = out * cell.tanh()
            gates.append(gate)
            cells.append(cell)
            after.append(hidden)
        output = torch.stack(after)
        ctx.save_for_backward(
            torch.stack(before), torch.stack(gates), torch.stack(cells), cont, weight
        )
        last_hidden, last_cell = hidden.clone(), cell.clone()
        ctx.mark_non_differentiable(last_hidden, last_cell)
        return output, last_hidden, last_cell

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        before, gates, cells, cont, weight = ctx.saved_tensors
        steps, batch, size = before.shape
        enter, forget, out, value = gates.split(size, 2)
        squashed = cells[1:].tanh()
        one = torch.ones((), dtype=gates.dtype, device=gates.device)
        # What each gate's gradient is, as a multiple of that of the cell (of h for the third).
        factors = torch.stack(
            (
                value * enter * (1 - enter),
                cells[:-1] * forget * (1 - forget),
                squashed * out * (1 - out),
                enter * torch.addcmul(one, value, value, value=-1),
            ),
            2,
        )
        through = out * torch.addcmul(one, squashed, squashed, value=-1)
        inner: list[Tensor] = []
        grad = grads[0][-1]
        grad_cell = torch.zeros_like(grad)
        for step in range(steps - 1, -1, -1):
            grad_cell = torch.addcmul(grad_cell, grad, through[step])
            gate = factors[step] * grad_cell.unsqueeze(1)
            gate[:, 2] = factors[step, :, 2] * grad
            inner.append(gate.reshape(batch, 4 * size))
            if step:
                grad_cell = grad_cell * forget[step]
                back = torch.mm(inner[-1], weight)
                grad = torch.addcmul(grads[0][step - 1], back, cont[step])
        all_gates = torch.stack(inner[::-1])
        grad_weight = torch.mm(all_gates.flatten(0, 1).t(), before.flatten(0, 1))
        return all_gates, None, grad_weight, None, None
