"""RNN: the simple recurrent network."""

from __future__ import annotations

import torch
from torch import Tensor

from .fillers import Filler
from .native import products
from .recurrent import Recurrent, told_whole
from .recurrent_steps import TanhSteps, keeps_for_backward, run
from .registry import register


@register("RNN")
class RNN(Recurrent):
    """h_t = tanh(W_x x_t + W_s s + W_h (cont_t h_{t-1}) + b), o_t = tanh(W_o h_t + b_o).

    bottoms: x ``(T, N, ...)``, T steps of N streams; cont ``(T, N)``, 0 where a sequence begins and
    1 within; maybe a static input s ``(N, ...)``. top: o ``(T, N, num_output)``. The state h is
    carried from one forward to the next, starting with zeros, and gradients stop there. With
    ``expose_hidden`` a further bottom gives h_0 and a further top h_T, ``(1, N, num_output)``,
    both without gradient. Blobs: ``weight_x``, ``bias``, with a static input ``weight_static``,
    then ``weight_h``, ``weight_out``, ``bias_out``. ``debug_info`` is refused.

    With ``whole_sequences`` cont of later steps than the first is taken to be 1, and a GPU reads
    the sequences by torch's fused kernel; for the CPU torch has none.

    Torch: ``nn.RNN`` has no ``cont`` and no second map to the output.
    """

    weight_out: Tensor
    bias_out: Tensor

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
        super().__init__(
            inputs,
            num_output,
            static_inputs=static_inputs,
            expose_hidden=expose_hidden,
            weight_filler=weight_filler,
            bias_filler=bias_filler,
        )
        self.add_blob("weight_out", (num_output, num_output), weight_filler)
        self.add_blob("bias_out", (num_output,), bias_filler)

    def steps(self, x: Tensor, offset: Tensor, cont: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        if self.whole_sequences:
            cont = told_whole(cont)
        if self.whole_sequences and x.device.type not in ("cpu", "meta"):
            weights = [self.weight_x, self.weight_h, self.bias, torch.zeros_like(self.bias)]
            (start,) = self._begin(cont, *state)
            arguments = (True, 1, 0.0, keeps_for_backward(), False, False)
            hidden, last = torch.rnn_tanh(x, start, weights, *arguments)
            hidden, last = hidden.to(x.dtype), last[0].detach().to(x.dtype)
        else:
            hidden, last = run(TanhSteps, x, self.weight_x, offset, cont, self.weight_h, *state)
        return products.linear(hidden, self.weight_out, self.bias_out).tanh(), last
