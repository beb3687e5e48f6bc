"""Forward and backward through a range of a net's layers, one by one.

Every layer's computation is recorded by itself: its bottoms enter as leaves, so that a pass can
begin and end anywhere and every blob gets its gradient. Gradients of blobs are overwritten, those
of parameters added up, as in Caffe. No activation is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer
from ...layers.data.input import Input
from ...netdef.steps import SourceStep, Step
from ...proto.errors import CortadoError, LayerError
from .errors import as_caffe, caffe_errors
from .stages import Record, Stage

Callback = Callable[[int], object]


class Passes:
    """Runs the stages of a net; callbacks get the index of the layer."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self.before_forward: list[Callback] = []
        self.after_forward: list[Callback] = []
        self.before_backward: list[Callback] = []
        self.after_backward: list[Callback] = []

    # -- forward -----------------------------------------------------------------------------------

    def forward(self, start: int, end: int, device: torch.device) -> list[Tensor]:
        """Run the layers ``start`` to ``end``; returns the terms of the loss."""
        terms: list[Tensor] = []
        for stage in self.stages[start : end + 1]:
            stage.record = None  # its memory serves this pass
        before = torch.is_grad_enabled()
        index = start
        try:
            for index in range(start, end + 1):
                for callback in self.before_forward:
                    callback(index)
                stage = self.stages[index]
                if isinstance(stage.step, SourceStep):
                    _fetch(stage.step, stage, device)
                else:
                    terms += _run(stage.step, stage)
                for callback in self.after_forward:
                    callback(index)
        except (CortadoError, LayerError) as error:
            raise as_caffe(error, f"layer {self.stages[index].name!r}") from error
        finally:
            torch.set_grad_enabled(before)
        return terms

    # -- backward ----------------------------------------------------------------------------------

    def backward(self, start: int, end: int) -> None:
        """Pass gradients from the tops of layer ``start`` down to the bottoms of layer ``end``."""
        for index in range(start, end - 1, -1):
            for callback in self.before_backward:
                callback(index)
            stage = self.stages[index]
            if isinstance(stage.step, Step) and stage.step.needs_backward:
                with caffe_errors(f"layer {stage.name!r}"):
                    self._back(stage.step, stage)
            for callback in self.after_backward:
                callback(index)

    def _back(self, step: Step, stage: Stage) -> None:
        record = stage.record
        if record is None or not record.valid:
            record = _replay(step, stage)
        pairs = [
            (top, blob.gradient.tensor.view(top.shape).to(top.dtype))
            for top, blob in zip(record.tops, stage.tops, strict=True)
            if top.requires_grad
        ]
        wants = sorted(stage.wants)
        receivers = [*(record.bottoms[index] for index in wants), *record.parameters]
        if not pairs or not receivers:
            return
        tops, given = zip(*pairs, strict=True)
        # Kept, because a script may go back more than once after one forward.
        found = torch.autograd.grad(tops, receivers, given, retain_graph=True, allow_unused=True)
        for index, gradient in zip(wants, found, strict=False):
            if gradient is not None:
                stage.bottoms[index].gradient.put(gradient, owned=False)
        for parameter, gradient in zip(record.parameters, found[len(wants) :], strict=True):
            if gradient is not None:
                _add(parameter, gradient, given)

    # -- shapes ------------------------------------------------------------------------------------

    def reshape(self) -> None:
        """Give every blob the shape that follows from those of the data, without computing."""
        for stage in self.stages:
            if isinstance(stage.step, Step):
                with caffe_errors(f"layer {stage.name!r}"):
                    self.reshape_stage(stage.step.layer, stage)

    def reshape_stage(self, layer: Layer, stage: Stage) -> None:
        """Give the tops of one layer the shapes that follow from its bottoms'."""
        bottoms = [torch.empty(blob.shape, device="meta") for blob in stage.bottoms]
        with _on_meta(layer):
            tops = layer.infer(bottoms)
        for blob, top in zip(stage.tops, tops, strict=True):
            if blob not in stage.bottoms:
                blob.reshape(*top.shape)

    def is_input(self, index: int) -> bool:
        """Whether layer ``index`` is an Input, whose tops the script fills."""
        step = self.stages[index].step
        return isinstance(step, SourceStep) and isinstance(step.source, Input)


def _fetch(step: SourceStep, stage: Stage, device: torch.device) -> None:
    if step.source.delivers:
        for blob, values in zip(stage.tops, step.source.next(device), strict=True):
            blob.put(values)


def _run(step: Step, stage: Stage) -> list[Tensor]:
    """Compute the tops of a layer; returns its terms of the loss."""
    for blob in stage.tops:
        if blob not in stage.bottoms:
            blob.values.release()
    tops = _compute(step, stage)
    for blob, top in zip(stage.tops, tops, strict=True):
        blob.put(top.detach() if top.dtype == torch.float32 else top.detach().float())
    terms = []
    for index, weight in step.losses.items():
        term = stage.tops[index].values.tensor.sum()
        terms.append(term if weight == 1 else term * weight)
    return terms


def _compute(step: Step, stage: Stage) -> Sequence[Tensor]:
    """The tops for the bottoms as they are now, recorded if backward will pass here.

    Leaves the gradient mode as this layer needs it; who calls it restores the mode.
    """
    for tie in step.views:
        tie.apply()
    bottoms = [blob.values.tensor.detach() for blob in stage.bottoms]
    for index in stage.wants:
        bottoms[index].requires_grad_()
    if torch.is_grad_enabled() != step.needs_backward:
        torch.set_grad_enabled(step.needs_backward)
    result = step.layer(*bottoms)
    tops = (result,) if isinstance(result, Tensor) else result
    if step.needs_backward:
        parameters = stage.parameters()
        versions = [parameter._version for parameter in parameters]
        stage.record = Record(bottoms, parameters, tops, versions)
    return tops


def _replay(step: Step, stage: Stage) -> Record:
    """Record a layer that was not run since its parameters changed, or never: its statistics stay
    as they are."""
    before = torch.is_grad_enabled()
    try:
        with _kept_buffers(step.layer):
            _compute(step, stage)
    finally:
        torch.set_grad_enabled(before)
    assert stage.record is not None
    return stage.record


def loss_of(terms: Sequence[Tensor]) -> float:
    """The sum of the loss terms."""
    return float(sum(term.item() for term in terms))


def _add(parameter: Tensor, gradient: Tensor, given: Sequence[Tensor]) -> None:
    """Add to a parameter's gradient; what is taken over must not be a blob's memory."""
    if parameter.grad is not None:
        parameter.grad.add_(gradient)
    elif any(gradient.data_ptr() == each.data_ptr() for each in given):
        parameter.grad = gradient.clone()
    else:
        parameter.grad = gradient


class _kept_buffers:
    """While it lasts, a layer may change its buffers; then they are as before."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def __enter__(self) -> None:
        self.kept = {
            name: (buffer, buffer.clone())
            for name, buffer in self.layer._buffers.items()
            if buffer is not None
        }

    def __exit__(self, *_: object) -> None:
        for name, (buffer, values) in self.kept.items():
            buffer.copy_(values)
            self.layer._buffers[name] = buffer


class _on_meta:
    """While it lasts, a layer's parameters and buffers are on the meta device."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def __enter__(self) -> None:
        layer = self.layer
        tables: list[dict[str, Any]] = [layer._parameters, layer._buffers]
        self.kept = [(table, dict(table)) for table in tables]
        self.views = {
            blob.name: layer.__dict__[blob.name]
            for blob in layer.blobs
            if blob.name in layer.__dict__
        }
        for table, _ in self.kept:
            for name, tensor in table.items():
                if tensor is not None:
                    meta = torch.empty_like(tensor, device="meta")
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    table[name] = torch.nn.Parameter(meta) if is_parameter else meta
        for name, tensor in self.views.items():
            layer.__dict__[name] = torch.empty_like(tensor, device="meta")

    def __exit__(self, *_: object) -> None:
        for table, kept in self.kept:
            table.clear()
            table.update(kept)
        self.layer.__dict__.update(self.views)
