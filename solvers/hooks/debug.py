"""debug_info: mean magnitudes of all blobs and gradients, in the iterations that are displayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...netdef.splits import insert_splits
from ...proto.caffe_pb2 import LayerParameter
from .. import events
from .base import Hook
from .display import Display

if TYPE_CHECKING:
    from ..loop import Iteration, Pass
    from ..solver import Solver


class Debug(Hook):
    """Reports Caffe's debug lines of a pass: forward in the order of layers, backward in reverse.

    Split layers are shown where Caffe has them. A layer's bottom gradient is what this layer alone
    sends back, as there, not the sum over all consumers of the blob.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._handles: list[Any] = []
        #: By layer: mean magnitudes of its tops and of its parameters in this pass.
        self._tops: dict[str, list[float]] = {}
        self._parameters: dict[str, list[float]] = {}
        #: By layer and bottom: what the layer sends back.
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
            self._tops[step.name] = [_mean(top) for top in tops]
            blobs = [step.layer.blob(index) for index in range(len(step.layer.blobs))]
            self._parameters[step.name] = [_mean(blob) for blob in blobs]

        return hook

    def after_pass(self, solver: Solver, made: Pass) -> bool:
        if self._handles:
            batch = made.evidence.batch
            for source in solver.net.sources:
                self._tops[source.name] = [_mean(batch[name]) for name in source.tops]
            layers = [message for message, _ in insert_splits(solver.net.to_message().layer)]
            for text in (*self._forward(layers), *self._backward(solver, layers)):
                solver.emit(events.DebugLine(text))
            self._gradients.clear()
        return False

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        self.close(solver)

    def close(self, solver: Solver) -> None:
        if self._handles:
            solver.net.literal = False
        while self._handles:
            self._handles.pop().remove()

    def _forward(self, layers: Sequence[LayerParameter]) -> Iterator[str]:
        newest: dict[str, float] = {}
        for layer in layers:
            start = f"[Forward] Layer {layer.name}, "
            # What is no layer here is a Split, whose tops are its bottom.
            values = self._tops.get(layer.name) or [newest[layer.bottom[0]]] * len(layer.top)
            for name, value in zip(layer.top, values, strict=True):
                newest[name] = value
                yield f"{start}top blob {name} data: {value:g}"
            for index, value in enumerate(self._parameters.get(layer.name, ())):
                yield f"{start}param blob {_parameter_name(layer, index)} data: {value:g}"

    def _backward(self, solver: Solver, layers: Sequence[LayerParameter]) -> Iterator[str]:
        steps = {step.name: step for step in solver.net.steps}
        sent: dict[str, Tensor] = {}
        for layer in reversed(layers):
            start = f"[Backward] Layer {layer.name}, "
            for index, name in enumerate(layer.bottom):
                gradient = self._gradients.get((layer.name, index))
                if layer.name not in steps:
                    gradient = _sum_of(layer, sent)
                if gradient is not None:
                    sent[name] = gradient
                    yield f"{start}bottom blob {name} diff: {_mean(gradient):g}"
            for index in range(len(self._parameters.get(layer.name, ()))):
                gradient = steps[layer.name].layer.blob(index).grad
                if gradient is not None:
                    name = _parameter_name(layer, index)
                    yield f"{start}param blob {name} diff: {_mean(gradient):g}"
        yield _norms(solver)


def _sum_of(split: LayerParameter, sent: dict[str, Tensor]) -> Tensor | None:
    """What a Split sends back: the sum of what its readers sent, and its weight in the loss."""
    gradients = [sent[name] for name in split.top if name in sent]
    if not gradients:
        return None
    return torch.stack(gradients).sum(0) + sum(split.loss_weight)


def _parameter_name(layer: LayerParameter, index: int) -> str:
    """The name that the prototxt gives a parameter, otherwise its number, as Caffe shows it."""
    declared = layer.param
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
