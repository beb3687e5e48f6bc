"""The steps of LSTM and RNN through time, and their gradients (``kernels/recurrent.c``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import library

#: Sequences side by side that fill enough of a block, and states that are worth the packing.
_SEQUENCES, _STATES = 4, 32


def suits(*tensors: Tensor) -> bool:
    """Whether the kernels compute these steps; the first is ``(T, N, ...)``."""
    return (
        tensors[0].shape[1] >= _SEQUENCES
        and tensors[0].shape[0] * tensors[0].shape[1] >= _STATES
        and library.suits(*tensors)
        and library.function("recurrent", "recurrent_lstm_forward", "n") is not None
    )


def tanh_forward(
    output: Tensor, offset: Tensor, cont: Tensor, weight: Tensor, hidden: Tensor, before: Tensor
) -> None:
    """``output`` (T, N, D), the projected input, becomes h; ``before`` what each step begins
    with."""
    offset = offset.contiguous()
    given = {"gates": output, "output": output, "offset": offset, "before": before}
    _call("tanh_forward", 1, output, offset.dim() - 1, {"hidden": hidden, **given}, cont, weight)


def tanh_backward(
    inner: Tensor, cont: Tensor, weight: Tensor, output: Tensor, towards: Tensor
) -> None:
    """``inner`` (T, N, D) becomes the gradient before the squashing for that of h, ``towards``."""
    given = {"inner": inner, "output": output, "towards": towards}
    _call("tanh_backward", 1, output, 0, given, cont, weight)


def lstm_forward(
    joint: Tensor,
    offset: Tensor,
    cont: Tensor,
    weight: Tensor,
    hidden: Tensor,
    before: Tensor,
    cells: Tensor,
    squashed: Tensor,
    output: Tensor,
) -> None:
    """``joint`` (T, N, 4 D), the projected input, becomes the gates i, f, o, g. ``cells`` begins
    with c before the first step; the last four are filled."""
    given = {"gates": joint, "offset": offset, "hidden": hidden, "before": before}
    given |= {"cells": cells, "squashed": squashed, "output": output}
    _call("lstm_forward", 4, output, offset.dim() - 1, given, cont, weight)


def lstm_backward(
    gates: Tensor, cont: Tensor, weight: Tensor, cells: Tensor, squashed: Tensor, towards: Tensor
) -> Tensor:
    """The gradient (T, N, 4 D) of the gates before squashing for that of h, ``towards``."""
    inner = gates.new_empty(*gates.shape[:2], gates.shape[2] * gates.shape[3])
    given = {"inner": inner, "gates": gates, "cells": cells, "squashed": squashed}
    _call("lstm_backward", 4, squashed, 0, {"towards": towards, **given}, cont, weight)
    return inner


#: The pointers of the kernels' call_t, in its order.
_POINTERS = (
    *("weight", "cont", "gates", "before", "output", "cells", "squashed", "offset"),
    *("hidden", "towards", "inner", "room"),
)
_OUTPUTS = frozenset(("gates", "before", "output", "cells", "squashed", "inner"))


def _call(
    name: str,
    gates: int,
    like: Tensor,
    offsets: int,
    tensors: dict[str, Tensor],
    cont: Tensor,
    weight: Tensor,
) -> None:
    """``like`` is (T, N, D); ``offsets`` says whether each sequence has its own offset."""
    steps, batch, size = like.shape
    found: Any = library.function("recurrent", f"recurrent_{name}", "n")
    tensors = {
        key: tensor if key in _OUTPUTS else tensor.contiguous()
        for key, tensor in (*tensors.items(), ("cont", cont), ("weight", weight))
    }
    threads = torch.get_num_threads()
    rooms = library.figures("recurrent", "recurrent_room", 2, gates, batch, size, threads)
    tensors["room"] = torch.empty(rooms[name.endswith("backward")])
    pointers = [library.address(tensors.get(key)) for key in _POINTERS]
    step = offsets * gates * size
    found(library.numbers(*pointers, step, steps, batch, size, threads))
