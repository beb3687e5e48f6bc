"""debug_info: mean magnitudes of all blobs and gradients, in the iterations that are displayed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import events
from .base import Hook
from .display import Display

if TYPE_CHECKING:
    from ..loop import Iteration, Pass
    from ..solver import Solver


class Debug(Hook):
    """Reports Caffe's debug lines of a pass: forward in the order of layers, backward in reverse.

    A layer's bottom gradient is what this layer alone sends back, as Caffe shows it, not the sum
    over all consumers of the blob.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._handles: list[Any] = []
        #: By layer: its lines of this pass.
        self._forward: dict[str, list[str]] = {}
        self._gradients: dict[tuple[str, int], Tensor] = {}

    def before_step(self, solver: Solver) -> None:
        if not self._display.is_due(solver.iteration):
            return
        solver.net.literal = True
        for step in solver.net.steps:
            self._handles.append(step.layer.register_forward_pre_hook(self._before(step)))
            self._handles.append(step.layer.register_forward_hook(self._after(step)))

    def _before(self, step: Any) -> Any:
        """Give the layer views of its bottoms, whose gradients are this layer's alone."""

        def hook(module: object, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen = []
            for index, bottom in enumerate(bottoms):
                if bottom.requires_grad:
                    bottom = bottom.view_as(bottom)
                    bottom.register_hook(self._keeper((step.name, index)))
                seen.append(bottom)
            return tuple(seen)

        return hook

    def _keeper(self, key: tuple[str, int]) -> Any:
        def keep(gradient: Tensor) -> None:
            self._gradients[key] = gradient.detach()

        return keep

    def _after(self, step: Any) -> Any:
        def hook(module: object, bottoms: object, result: Tensor | Sequence[Tensor]) -> None:
            tops = (result,) if isinstance(result, Tensor) else result
            for name, top in zip(step.tops, tops, strict=True):
                self._note("top", step.name, name, top)
            for index in range(len(step.layer.blobs)):
                name = _parameter_name(step, index)
                self._note("param", step.name, name, step.layer.blob(index))

        return hook

    def _note(self, kind: str, layer: str, blob: str, tensor: Tensor) -> None:
        text = f"[Forward] Layer {layer}, {kind} blob {blob} data: {_mean(tensor):g}"
        self._forward.setdefault(layer, []).append(text)

    def after_pass(self, solver: Solver, made: Pass) -> bool:
        if self._handles:
            for source in solver.net.sources:
                for name in source.tops:
                    self._note("top", source.name, name, made.evidence.batch[name])
            for step in solver.net.order:
                for text in self._forward.get(step.name, ()):
                    solver.emit(events.DebugLine(text))
            for text in self._backward(solver):
                solver.emit(events.DebugLine(text))
            self._forward.clear()
            self._gradients.clear()
        return False

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        self.close(solver)

    def close(self, solver: Solver) -> None:
        if self._handles:
            solver.net.literal = False
        while self._handles:
            self._handles.pop().remove()

    def _backward(self, solver: Solver) -> list[str]:
        lines = []
        for step in reversed(solver.net.steps):
            start = f"[Backward] Layer {step.name}, "
            for index, name in enumerate(step.bottoms):
                gradient = self._gradients.get((step.name, index))
                if gradient is not None:
                    lines.append(f"{start}bottom blob {name} diff: {_mean(gradient):g}")
            for index in range(len(step.layer.blobs)):
                gradient = step.layer.blob(index).grad
                if gradient is not None:
                    name = _parameter_name(step, index)
                    lines.append(f"{start}param blob {name} diff: {_mean(gradient):g}")
        return [*lines, _norms(solver)]


def _parameter_name(step: Any, index: int) -> str:
    """The name that the prototxt gives a parameter, otherwise its number, as Caffe shows it."""
    declared = step.spec.message.param
    return (declared[index].name if index < len(declared) else "") or str(index)


def _mean(tensor: Tensor) -> float:
    return float(tensor.detach().abs().mean()) if tensor.numel() else 0.0


def _norms(solver: Solver) -> str:
    """Caffe's last line: norms over all learnable parameters."""
    data = [param.tensor.detach() for param in solver.net.params]
    gradients = solver.updater.gradients()
    norms = [
        float(torch.stack([torch.linalg.vector_norm(t, order) for t in group]).norm(order))
        if group
        else 0.0
        for order in (1, 2)
        for group in (data, gradients)
    ]
    return (
        f"[Backward] All net params (data, diff): L1 norm = ({norms[0]:g}, {norms[1]:g}); "
        f"L2 norm = ({norms[2]:g}, {norms[3]:g})"
    )
