"""How long a net takes, forward and backward: as it runs in use, and each layer by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from ...netdef import Net
from ...netdef.steps import SourceStep, Step
from ...proto import caffe_pb2

R = TypeVar("R")


@dataclass(slots=True)
class LayerTimes:
    """Milliseconds per layer of one pass in each direction, by layer name, and the pass's loss."""

    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def total(self) -> float:
        return sum(self.forward.values()) + sum(self.backward.values())


@dataclass(slots=True)
class PassTimes:
    """Milliseconds of a whole pass in each direction, and its loss."""

    forward: float
    backward: float
    loss: Tensor

    @property
    def total(self) -> float:
        return self.forward + self.backward


def whole(net: Net) -> PassTimes:
    """Time one pass as it runs in use: what is fused stays so, and only TRAIN has a backward.

    Inputs that the caller would have to feed are zeros; a backward without a loss starts from zeros
    at the outputs.
    """
    feeds = {step.tops: _feeder(step, net.device) for step in net.sources}

    def forward() -> tuple[dict[str, Tensor], Tensor]:
        batch: dict[str, Tensor] = {}
        for tops, feed in feeds.items():
            batch.update(zip(tops, feed(), strict=True))
        return net.run(batch)

    if net.phase == caffe_pb2.TEST:
        with torch.no_grad():
            (_, loss), milliseconds = _timed(forward, net.device)
        return PassTimes(milliseconds, 0.0, loss)
    (outputs, loss), there = _timed(forward, net.device)
    ends = [end for end in (loss, *outputs.values()) if end.requires_grad]
    if loss.requires_grad:
        ends = [loss]
    seeds = [torch.ones_like(end) if end is loss else torch.zeros_like(end) for end in ends]
    _, back = _timed(lambda: torch.autograd.backward(ends, seeds) if ends else None, net.device)
    net.zero_grad()
    return PassTimes(there, back, loss.detach())


@dataclass(slots=True)
class _Record:
    """What a layer's backward needs: its bottoms cut off from the layers before, and its tops."""

    step: Step
    bottoms: list[Tensor]
    tops: tuple[Tensor, ...]


def measure(net: Net) -> LayerTimes:
    """Run every layer forward on the next batch, then backward, each by itself, and time it.

    Each layer's bottoms are leaves of autograd's graph, so that the gradient of one layer alone is
    computed at a time. Inputs that the caller would have to feed are zeros.
    """
    with net.execution.context(net.device):
        return _layer_by_layer(net, net.device)


def _layer_by_layer(net: Net, device: torch.device) -> LayerTimes:
    times = LayerTimes()
    blobs: dict[str, Tensor] = {}
    for source in net.sources:
        feed = _feeder(source, device)
        tops, times.forward[source.name] = _timed(feed, device)
        times.backward[source.name] = 0.0
        blobs.update(zip(source.tops, map(net.arranged, tops), strict=True))
    records = [_forward(step, blobs, times, device) for step in net.steps]
    for record in records:
        for index, weight in record.step.losses.items():
            times.loss = times.loss.to(device) + weight * record.tops[index].detach().sum()
    gradients: dict[str, Tensor] = {}
    for record in reversed(records):
        _backward(record, gradients, times, device)
    order = [*(source.name for source in net.sources), *(step.name for step in net.steps)]
    times.backward = {name: times.backward[name] for name in order}
    return times


def _feeder(step: SourceStep, device: torch.device) -> Callable[[], tuple[Tensor, ...]]:
    source = step.source
    if source.delivers:
        return lambda: source.next(device)
    zeros = tuple(torch.zeros(shape, device=device) for shape in source.shapes)
    return lambda: zeros


def _forward(
    step: Step, blobs: dict[str, Tensor], times: LayerTimes, device: torch.device
) -> _Record:
    for tie in step.views:
        tie.apply()
    bottoms = []
    for index, name in enumerate(step.bottoms):
        leaf = blobs[name].detach()
        wanted = step.needs_backward and index not in step.detached
        bottoms.append(leaf.requires_grad_(wanted and leaf.is_floating_point()))
    result, times.forward[step.name] = _timed(lambda: step.layer(*bottoms), device)
    tops = (result,) if isinstance(result, Tensor) else tuple(result)
    blobs.update(zip(step.tops, tops, strict=True))
    return _Record(step, bottoms, tops)


def _backward(
    record: _Record, gradients: dict[str, Tensor], times: LayerTimes, device: torch.device
) -> None:
    step = record.step
    times.backward[step.name] = 0.0
    tops, given = [], []
    for index, (name, top) in enumerate(zip(step.tops, record.tops, strict=True)):
        gradient = gradients.pop(name, None)
        if index in step.losses:
            own = torch.full_like(top, step.losses[index])
            gradient = own if gradient is None else gradient + own
        if top.requires_grad:
            tops.append(top)
            # Backward runs as well where no loss follows, as in a net for use.
            given.append(torch.zeros_like(top) if gradient is None else gradient)
    wanted = [bottom for bottom in record.bottoms if bottom.requires_grad]
    wanted += [each for each in step.layer.parameters() if each.requires_grad]
    if not tops or not wanted:
        return
    found, times.backward[step.name] = _timed(lambda: _gradients(tops, wanted, given), device)
    by_leaf = dict(zip(map(id, wanted), found, strict=True))
    for name, bottom in zip(step.bottoms, record.bottoms, strict=True):
        gradient = by_leaf.get(id(bottom))
        if gradient is not None:
            gradients[name] = gradients[name] + gradient if name in gradients else gradient


def _gradients(
    tops: Sequence[Tensor], wanted: Sequence[Tensor], given: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(tops, wanted, given, allow_unused=True)


def _timed(work: Callable[[], R], device: torch.device) -> tuple[R, float]:
    """The result of ``work`` and how many milliseconds ``device`` took for it."""
    if device.type == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        start.record(stream)
        result = work()
        stop.record(stream)
        stop.synchronize()
        return result, start.elapsed_time(stop)
    began = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - began) * 1000
