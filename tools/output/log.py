"""The log lines that events stand for, in Caffe's words, so that existing log parsers read them.

Values are printed with six significant digits; not-a-number is ``nan`` and never signed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from functools import singledispatch
from typing import TYPE_CHECKING

from ...solvers import events
from ...solvers.events import Event, Output

if TYPE_CHECKING:
    from ...netdef.description import BuiltLayer, NetDescription

logger = logging.getLogger(__name__)

INFO, WARNING = logging.INFO, logging.WARNING

#: Longer lists of layers are shown by their first and last names.
MOST_NAMES = 12

#: One line of the log before it gets its prefix: level and message.
Line = tuple[int, str]


def number(value: float) -> str:
    """``value`` as a C++ stream prints it by default."""
    return f"{value:g}"


def output_lines(outputs: Iterable[Output], net: str) -> Iterator[Line]:
    """``    Train net output #0: loss = 0.5 (* 1 = 0.5 loss)`` for each output."""
    for index, output in enumerate(outputs):
        yield INFO, f"    {net} net output #{index}: {weighted(output)}"


def weighted(output: Output) -> str:
    """``loss = 0.5 (* 1 = 0.5 loss)``; without the bracket where the loss weight is 0."""
    text = f"{output.blob} = {number(output.value)}"
    if output.loss_weight:
        loss = number(output.value * output.loss_weight)
        text += f" (* {number(output.loss_weight)} = {loss} loss)"
    return text


def net_lines(net: NetDescription) -> Iterator[Line]:
    """What Caffe says while it builds a net."""
    for layer in net.layers:
        yield from layer_lines(layer)
    for layer in reversed(net.layers):
        verb = "needs" if layer.needs_backward else "does not need"
        yield INFO, f"{layer.name} {verb} backward computation."
    for blob in net.outputs:
        yield INFO, f"This network produces output {blob}"
    yield INFO, "Network initialization done."


def layer_lines(layer: BuiltLayer) -> Iterator[Line]:
    yield INFO, f"Creating Layer {layer.name}"
    for blob in layer.bottoms:
        yield INFO, f"{layer.name} <- {blob}"
    for index, blob in enumerate(layer.tops):
        in_place = layer.bottoms[index : index + 1] == (blob,)
        yield INFO, f"{layer.name} -> {blob}{' (in-place)' if in_place else ''}"
    yield INFO, f"Setting up {layer.name}"
    for shape, weight in zip(layer.top_shapes, layer.loss_weights, strict=True):
        sizes = "".join(f"{size} " for size in shape)
        yield INFO, f"Top shape: {sizes}({math.prod(shape)})"
        if weight:
            yield INFO, f"    with loss weight {number(weight)}"
    yield INFO, f"Memory required for data: {layer.bytes}"
    for each in layer.shared:
        owner = f"owned by layer '{each.owner}', param index {each.index}"
        yield INFO, f"Sharing parameters '{each.name}' {owner}"


@singledispatch
def lines(event: Event) -> Iterable[Line]:
    """The log lines that ``event`` stands for; none for events that are not logged."""
    return ()


@lines.register
def _(event: events.NetCreated) -> Iterable[Line]:
    kind = "training net" if event.phase == "TRAIN" else f"test net (#{event.index})"
    origin = f"from net file: {event.source}" if event.source else f"from {event.origin}"
    yield INFO, f"Creating {kind} {origin}"


@lines.register
def _(event: events.NetBuilt) -> Iterable[Line]:
    return net_lines(event.net)


@lines.register
def _(event: events.SolverReady) -> Iterable[Line]:
    yield INFO, "Solver scaffolding done."


@lines.register
def _(event: events.WeightsLoaded) -> Iterable[Line]:
    yield INFO, f"Finetuning from {event.path}"
    for name in event.ignored:
        yield INFO, f"Ignoring source layer {name}"
    width = max((len(what) for what, _ in event.table), default=0)
    for what, names in event.table:
        shown = ", ".join(names if len(names) <= MOST_NAMES else (*names[:2], "...", names[-1]))
        yield INFO, f"    {what:<{width}} {len(names):>5}  {shown}"


@lines.register
def _(event: events.TrainingStarted) -> Iterable[Line]:
    yield INFO, f"Solving {event.net}"
    yield INFO, f"Learning Rate Policy: {event.policy}"


@lines.register
def _(event: events.Restored) -> Iterable[Line]:
    yield INFO, f"Restoring previous solver status from {event.path}"


@lines.register
def _(event: events.TestStarted) -> Iterable[Line]:
    if not event.weights:
        yield INFO, f"Iteration {event.iteration}, Testing net (#{event.index})"


@lines.register
def _(event: events.TestFinished) -> Iterable[Line]:
    if event.weights:
        # A parser would take these for the outputs of the plain weights.
        for output in event.outputs:
            yield INFO, f"    {event.weights} weights: {weighted(output)}"
        return
    if event.loss is not None:
        yield INFO, f"Test loss: {number(event.loss)}"
    yield from output_lines(event.outputs, "Test")


@lines.register
def _(event: events.TestInterrupted) -> Iterable[Line]:
    yield INFO, "Test interrupted."


@lines.register
def _(event: events.Displayed) -> Iterable[Line]:
    speed = f"({number(event.rate)} iter/s, {number(event.seconds)}s/{event.interval} iters)"
    yield INFO, f"Iteration {event.iteration} {speed}, loss = {number(event.loss)}"
    yield from output_lines(event.outputs, "Train")


@lines.register
def _(event: events.StepAdvanced) -> Iterable[Line]:
    yield INFO, f"MultiStep Status: Iteration {event.iteration}, step = {event.step}"


@lines.register
def _(event: events.RateDisplayed) -> Iterable[Line]:
    yield INFO, f"Iteration {event.iteration}, lr = {number(event.rate)}"


@lines.register
def _(event: events.GradientsClipped) -> Iterable[Line]:
    yield (
        INFO,
        f"Gradient clipping: scaling down gradients (L2 norm {number(event.norm)} > "
        f"{number(event.limit)}) by scale factor {number(event.scale)}",
    )


@lines.register
def _(event: events.DebugLine) -> Iterable[Line]:
    yield INFO, f"    {event.text}"


@lines.register
def _(event: events.SnapshotStarted) -> Iterable[Line]:
    kind = "HDF5" if event.hdf5 else "binary proto"
    yield INFO, f"Snapshotting to {kind} file {event.path}"


@lines.register
def _(event: events.StateSnapshotStarted) -> Iterable[Line]:
    kind = "HDF5" if event.hdf5 else "binary proto"
    yield INFO, f"Snapshotting solver state to {kind} file {event.path}"


@lines.register
def _(event: events.SnapshotFailed) -> Iterable[Line]:
    yield WARNING, f"Snapshot {event.path} could not be written: {event.reason}"


@lines.register
def _(event: events.Notice) -> Iterable[Line]:
    for line in event.message.splitlines():
        yield (WARNING if event.warning else INFO), line


@lines.register
def _(event: events.CachingFeatures) -> Iterable[Line]:
    minutes, seconds = divmod(round(event.seconds), 60)
    left = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    done = f"{event.done:,} of {event.total:,} records"
    yield INFO, f"Features of the {event.net}: {done}, about {left} left"


@lines.register
def _(event: events.FinalLoss) -> Iterable[Line]:
    yield INFO, f"Iteration {event.iteration}, loss = {number(event.loss)}"


@lines.register
def _(event: events.TrainingStopped) -> Iterable[Line]:
    yield INFO, f"Stopped at iteration {event.iteration} by {event.reason}"
    yield INFO, "Optimization stopped early."


@lines.register
def _(event: events.TrainingFinished) -> Iterable[Line]:
    yield INFO, "Optimization Done."


def write(event: Event) -> None:
    """Log the lines of ``event``; a listener of solver events."""
    for level, message in lines(event):
        logger.log(level, "%s", message)
