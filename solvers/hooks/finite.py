"""Stop at the first loss or gradient that is NaN or infinite, and keep what shows it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...layers.inner_product import InnerProduct
from ...netdef.inner_products import surely_finite, unshared
from ...proto.errors import CortadoError, NumericError
from .. import diagnosis
from .base import Hook

if TYPE_CHECKING:
    from ..loop import Iteration, Pass
    from ..solver import Solver

#: How many keys of a batch a message names.
SHOWN_KEYS = 8
#: Gradients of more elements are looked at on the CPU as soon as backward has made them, while the
#: caches hold them: later, reading them would take most of the time of the check.
LARGE = 1 << 16


class Finite(Hook):
    """Checks loss and gradients after every pass, before any update is made from them.

    On the CPU the answer is there at once. On other devices (``deferred``) it is fetched one pass
    later, so that no pass waits for its own, and always before a snapshot: a good one is never
    followed by a bad one. The weights are copied on the device before each update until then, so
    that after a bad one they are those before it, whatever the rule.

    Where gradients are scaled (FP16) an overflow is no trouble: only the loss is checked, and that
    the scale does not fall below 1.
    """

    def __init__(self, deferred: bool) -> None:
        self._deferred = deferred
        self._bad: Pass | None = None
        self._pending: tuple[Pass, Callable[[], bool]] | None = None
        self._before: list[Tensor] = []
        self._small: list[Tensor] = []
        self._large: list[Tensor] = []
        self._handles: list[Any] = []
        self._watched: list[tuple[Tensor, InnerProduct]] = []
        #: Sums of the large parameters' gradients in this pass, by the parameter's id.
        self._sums: dict[int, float] = {}
        # One call for all small tensors: a step has taken the caches, which makes calls dear. The
        # kernel multiplies by 1 and tells whether it saw a value that is not finite.
        self._multiply = torch._amp_foreach_non_finite_check_and_unscale_
        self._found, self._one = torch.zeros(1), torch.ones(1)

    # -- looking at numbers ------------------------------------------------------------------------

    def before_train(self, solver: Solver) -> None:
        tensors = [param.tensor for param in solver.net.params if param.tensor.requires_grad]
        if solver.scaler is not None:
            tensors = []
        if solver.parameters.update_in_backward:  # only what the updater has refused is left
            self._large, self._small = [], tensors
            return
        self._large = [t for t in tensors if t.numel() > LARGE and not self._deferred]
        self._small = [t for t in tensors if t.numel() <= LARGE or self._deferred]
        self._handles += [t.register_post_accumulate_grad_hook(self._add) for t in self._large]
        large = {id(tensor) for tensor in self._large}
        self._watched = [(w, layer) for w, layer in unshared(solver.net) if id(w) in large]
        for weight, layer in self._watched:
            layer.taker = partial(self._bound, weight)

    def _add(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if id(parameter) not in self._sums:
            self._sums[id(parameter)] = float(parameter.grad.sum())

    def _bound(self, weight: Tensor, grad: Tensor, rows: Tensor) -> bool:
        """Look at the factors of the gradient of ``weight``, without taking them."""
        if surely_finite(grad, rows):
            self._sums[id(weight)] = 0.0
        return False

    def after_pass(self, solver: Solver, made: Pass) -> bool:
        if self._deferred:
            self._check(solver)
            self._pending = (made, _fetched(_on_device(made.loss, _gradients(self._small))))
            return False
        if not self._is_finite(made.loss):
            self._bad = made
        self._sums.clear()
        return self._bad is not None

    def _is_finite(self, loss: Tensor) -> bool:
        """Whether loss and gradients are finite, on the CPU."""
        rest = _gradients(self._small)
        if len(self._sums) < len(self._large):  # backward was not torch's, or did not reach all
            rest += _gradients([t for t in self._large if id(t) not in self._sums])
        self._multiply([loss, *rest], self._found, self._one)
        if not self._found.item() and math.isfinite(sum(self._sums.values())):
            return True
        self._found.zero_()
        # A sum of large values may overflow where none of them is infinite.
        rest += _gradients(self._large)
        return all(bool(tensor.isfinite().all()) for tensor in (loss, *rest))

    # -- stopping ----------------------------------------------------------------------------------

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        """Stop here, so that display and debug_info have shown the iteration."""
        if self._bad is not None:
            raise NumericError(self._report(solver, self._bad))
        if not iteration.usable and solver.scaler is not None and solver.scaler.scale < 1:
            raise NumericError(
                f"iteration {iteration.number}: gradients overflow or are NaN although the loss is "
                f"scaled by {solver.scaler.scale:g} only"
            )

    def before_update(self, solver: Solver, iteration: Iteration) -> None:
        """Keep the weights until the answer is there."""
        if self._pending is not None:
            weights = [param.tensor.detach() for param in solver.net.params]
            self._before = self._before or [torch.empty_like(tensor) for tensor in weights]
            torch._foreach_copy_(self._before, weights)

    def before_snapshot(self, solver: Solver) -> None:
        self._check(solver)

    def after_train(self, solver: Solver) -> None:
        self._check(solver)

    def close(self, solver: Solver) -> None:
        while self._handles:
            self._handles.pop().remove()
        while self._watched:
            self._watched.pop()[1].taker = None
        self._bad = None

    def _check(self, solver: Solver) -> None:
        """Stop if the pass whose answer is still to come was bad."""
        if self._pending is None:
            return
        (made, finite), self._pending = self._pending, None
        if finite():
            return
        if made.iteration < solver.iteration:
            with torch.no_grad():
                for param, before in zip(solver.net.params, self._before, strict=True):
                    param.tensor.copy_(before)
        raise NumericError(self._report(solver, made))

    def _report(self, solver: Solver, made: Pass) -> str:
        place, passes = f"iteration {made.iteration}", solver.parameters.iter_size
        if passes > 1:
            place += f", pass {made.index + 1} of {passes}"
        first = diagnosis.examine(solver.net, made.evidence).first
        where = first or "it does not show when the batch is run again"
        message = f"{place}: loss is {float(made.loss):g}; {where}"
        if made.evidence.keys:
            message += f"; batch: {_listed(made.evidence.keys)}"
        prefix = solver.parameters.snapshot_prefix
        if not prefix:
            return message
        folder = Path(f"{prefix}_not_finite_iter_{made.iteration}")
        try:
            diagnosis.write_bundle(folder, solver.net, made.evidence, message)
        except (OSError, CortadoError) as error:
            return f"{message}; {folder} could not be written: {error}"
        return f"{message}; net, weights and batch are in {folder}"


def _gradients(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [gradient for tensor in tensors if (gradient := tensor.grad) is not None]


def _on_device(loss: Tensor, gradients: list[Tensor]) -> Tensor:
    """One truth value on the device; largest magnitudes, because these cannot overflow."""
    largest = torch._foreach_norm(gradients, math.inf) if gradients else ()
    return torch.stack([loss, *largest]).isfinite().all()


def _fetched(flag: Tensor) -> Callable[[], bool]:
    """Copy a flag to the host without waiting for it; calling what is returned waits."""
    copy = flag.to("cpu", non_blocking=True)
    if flag.device.type != "cuda":
        return lambda: bool(copy)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(flag.device))  # not the stream of the current device

    def answer() -> bool:
        copied.synchronize()
        return bool(copy)

    return answer


def _listed(keys: Sequence[str]) -> str:
    """The keys for a message; all of them are in the bundle."""
    rest = len(keys) - SHOWN_KEYS
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
