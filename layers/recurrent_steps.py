"""RNN and LSTM through time, with their gradients written out.

The input is projected for all steps in one product; each step then is one product and as few
further operations as possible, into memory taken once; backward collects the gates' gradients of
all steps for one product a weight. Where sequences begin is data (``cont``), so nothing waits for
the device.

Weights of fewer bits than the input (autocast) mean that products are computed in their type; sums,
gates and states keep the input's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .native import products, recurrent

_sigmoid_slope = torch.ops.aten.sigmoid_backward
_tanh_slope = torch.ops.aten.tanh_backward


def keeps_for_backward() -> bool:
    """What torch's own recurrent kernels are told of training: cuDNN's refuse a backward pass after
    a forward pass that was none of it. Besides that it only turns dropout on."""
    return torch.is_grad_enabled()


def run(
    function: type[torch.autograd.Function],
    x: Tensor,
    weight_x: Tensor,
    offset: Tensor,
    cont: Tensor,
    weight: Tensor,
    *state: Tensor,
) -> tuple[Tensor, ...]:
    """``function`` of all steps, with products in the type that autocast asks for."""
    kind = x.device.type
    tops: tuple[Tensor, ...]
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        tops = function.apply(x, weight_x, offset, cont, weight, *state)
        return tops
    dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        tops = function.apply(x, weight_x.to(dtype), offset, cont, weight.to(dtype), *state)
    return tops


class TanhSteps(torch.autograd.Function):
    """h_t = tanh(W_x x_t + offset + W (cont_t h_{t-1})) for all t, and h_T without gradient.

    x ``(T, N, inputs)``, offset ``(D)`` or ``(N, D)``, cont ``(T, N, 1)``, h ``(N, D)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_x: Tensor,
        offset: Tensor,
        cont: Tensor,
        weight: Tensor,
        hidden: Tensor,
    ) -> tuple[Tensor, Tensor]:
        output = _project(x, weight_x)
        before = torch.empty_like(output)
        ctx.save_for_backward(x, weight_x, before, output, cont, weight)
        ctx.offset_axes = offset.dim()
        if recurrent.suits(output, offset, cont, weight, hidden):
            recurrent.tanh_forward(output, offset, cont, weight, hidden, before)
            last = output[-1].clone()
            ctx.mark_non_differentiable(last)
            return output, last
        turned = weight.t().contiguous()
        for kept, now, begun in zip(cont.unbind(), output.unbind(), before.unbind(), strict=True):
            torch.mul(hidden, kept, out=begun)
            _add_product(now, begun, turned)
            hidden = now.add_(offset).tanh_()
        last = hidden.clone()
        ctx.mark_non_differentiable(last)
        return output, last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_x, before, output, cont, weight = ctx.saved_tensors
        inner = torch.empty_like(output)
        if not torch.is_grad_enabled() and recurrent.suits(inner, cont, weight, grads[0]):
            recurrent.tanh_backward(inner, cont, weight, output, grads[0])
            return *_gradients(ctx, inner, x, weight_x, before), None
        towards, kept = grads[0].unbind(), cont.unbind()
        outputs, inners = output.unbind(), inner.unbind()
        grad = towards[-1]
        for step in range(len(towards) - 1, -1, -1):
            _tanh_slope.grad_input(grad, outputs[step], grad_input=inners[step])
            if step:
                back = _product(inners[step], weight)
                grad = torch.addcmul(towards[step - 1], back, kept[step])
        return *_gradients(ctx, inner, x, weight_x, before), None


class LSTMSteps(torch.autograd.Function):
    """All steps of an LSTM; h and c of the last without gradient.

    x ``(T, N, inputs)``, offset ``(4 D)`` or ``(N, 4 D)`` in the order i, f, o, g, cont
    ``(T, N, 1)``, h and c ``(N, D)``. As in Caffe, a fractional cont scales h and the forget gate,
    and the gate's gradient takes the scaled gate for a sigmoid.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_x: Tensor,
        offset: Tensor,
        cont: Tensor,
        weight: Tensor,
        hidden: Tensor,
        cell: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, size = hidden.shape
        joint = _project(x, weight_x)
        output, before, squashed = (
            x.new_empty(x.shape[0], batch, size) for _ in ("h", "kept h", "tanh c")
        )
        cells = x.new_empty(x.shape[0] + 1, batch, size)
        cells[0] = cell
        gates = joint.unflatten(2, (4, size))
        ctx.save_for_backward(x, weight_x, before, gates, cells, squashed, cont, weight)
        ctx.offset_axes = offset.dim()
        if recurrent.suits(joint, offset, cont, weight, hidden):
            recurrent.lstm_forward(
                joint, offset, cont, weight, hidden, before, cells, squashed, output
            )
            last_hidden, last_cell = output[-1].clone(), cells[-1].clone()
            ctx.mark_non_differentiable(last_hidden, last_cell)
            return output, last_hidden, last_cell
        turned = weight.t().contiguous()
        sigmoids = gates[:, :, :3].unbind()
        enter, forget, out, value = (gate.unbind() for gate in gates.unbind(2))
        rows = zip(
            joint.unbind(),
            cont.unbind(),
            before.unbind(),
            cells[1:].unbind(),
            squashed.unbind(),
            output.unbind(),
            strict=True,
        )
        for step, (gate, kept, begun, filled, flat, shown) in enumerate(rows):
            torch.mul(hidden, kept, out=begun)
            _add_product(gate, begun, turned)
            gate.add_(offset)
            sigmoids[step].sigmoid_()
            value[step].tanh_()
            forget[step].mul_(kept)
            torch.mul(forget[step], cell, out=filled)
            filled.addcmul_(enter[step], value[step])
            torch.tanh(filled, out=flat)
            torch.mul(out[step], flat, out=shown)
            hidden, cell = shown, filled
        last_hidden, last_cell = hidden.clone(), cell.clone()
        ctx.mark_non_differentiable(last_hidden, last_cell)
        return output, last_hidden, last_cell

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_x, before, gates, cells, squashed, cont, weight = ctx.saved_tensors
        if not torch.is_grad_enabled() and recurrent.suits(gates, cont, weight, grads[0]):
            inner = recurrent.lstm_backward(gates, cont, weight, cells, squashed, grads[0])
            return *_gradients(ctx, inner, x, weight_x, before), None, None
        inner, through = _factors(gates, cells, squashed)
        joint = inner.flatten(2)
        towards, forget, kept = grads[0].unbind(), gates[:, :, 1].unbind(), cont.unbind()
        first_two = inner[:, :, :2].unbind()
        _, _, out, value = (gate.unbind() for gate in inner.unbind(2))
        joints, throughs = joint.unbind(), through.unbind()
        grad = towards[-1]
        grad_cell = torch.zeros_like(grad)
        for step in range(len(towards) - 1, -1, -1):
            grad_cell = torch.addcmul(grad_cell, grad, throughs[step])
            first_two[step].mul_(grad_cell.unsqueeze(1))
            value[step].mul_(grad_cell)
            out[step].mul_(grad)
            if step:
                grad_cell = grad_cell.mul_(forget[step])
                back = _product(joints[step], weight)
                grad = torch.addcmul(towards[step - 1], back, kept[step])
        return *_gradients(ctx, joint, x, weight_x, before), None, None


def _factors(gates: Tensor, cells: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """The gates' gradients as multiples of that of c (the third's: of h), and c's of h."""
    enter, forget, out, value = gates.unbind(2)
    factors = torch.empty_like(gates)
    for_enter, for_forget, for_out, for_value = factors.unbind(2)
    _sigmoid_slope.grad_input(value, enter, grad_input=for_enter)
    _sigmoid_slope.grad_input(cells[:-1], forget, grad_input=for_forget)
    _sigmoid_slope.grad_input(squashed, out, grad_input=for_out)
    _tanh_slope.grad_input(enter, value, grad_input=for_value)
    return factors, _tanh_slope(out, squashed)


def _project(x: Tensor, weight: Tensor) -> Tensor:
    return _product(x.flatten(0, 1), weight.t()).unflatten(0, x.shape[:2])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a`` times ``b``, computed in the type of ``b``, in the type of ``a``."""
    return products.mm(a.to(b.dtype), b).to(a.dtype)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == b.dtype:
        total.addmm_(a, b)
    else:
        total.add_(torch.mm(a.to(b.dtype), b))


def _gradients(
    ctx: Any, inner: Tensor, x: Tensor, weight_x: Tensor, before: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight_x, offset, cont, weight and h from that before the squashing."""
    needed = ctx.needs_input_grad
    summed = (0,) if ctx.offset_axes == 2 else (0, 1)
    together = inner.flatten(0, 1).to(weight_x.dtype)
    turned = together.t()
    return (
        products.mm(together, weight_x).to(x.dtype).view_as(x) if needed[0] else None,
        products.mm(turned, x.flatten(0, 1).to(turned.dtype)) if needed[1] else None,
        inner.sum(summed) if needed[2] else None,
        None,
        products.mm(turned, before.flatten(0, 1).to(turned.dtype)) if needed[4] else None,
    )
