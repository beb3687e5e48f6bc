"""Log lines as Caffe prints them, so that existing log parsers can read them.

A line is ``I1121 23:18:38.123456  4242 file.py:88] message``: severity, month and day without the
year (parsers take four digits), time, process and origin. Values are printed with six significant
digits; not-a-number is ``nan`` and never signed.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import singledispatch
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ...proto.errors import ResourceError
from ...solvers import events
from ...solvers.events import Event, Output

INFO, WARNING, ERROR = "I", "W", "E"
_RANK = {severity: rank for rank, severity in enumerate((INFO, WARNING, ERROR))}

#: One line of the log before it gets its prefix: severity and message.
Line = tuple[str, str]


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
def _(event: events.SolverReady) -> Iterable[Line]:
    yield INFO, "Solver scaffolding done."


@lines.register
def _(event: events.WeightsLoaded) -> Iterable[Line]:
    yield INFO, f"Finetuning from {event.path}"
    for name in event.ignored:
        yield INFO, f"Ignoring source layer {name}"


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
def _(event: events.FinalLoss) -> Iterable[Line]:
    yield INFO, f"Iteration {event.iteration}, loss = {number(event.loss)}"


@lines.register
def _(event: events.TrainingStopped) -> Iterable[Line]:
    yield INFO, "Optimization stopped early."


@lines.register
def _(event: events.TrainingFinished) -> Iterable[Line]:
    yield INFO, "Optimization Done."


class Log:
    """Writes log lines to standard error and to a file; a listener of solver events.

    ``path`` is a file to append to. The environment's ``GLOG_log_dir`` asks for a copy there under
    glog's file name, ``GLOG_minloglevel`` (0 to 2) leaves out what is less severe.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        #: What shows a line; a live display puts itself in its place.
        self.show: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True)
        self._files: list[TextIO] = [_open(Path(path))] if path else []
        folder = os.environ.get("GLOG_log_dir")  # noqa: SIM112
        if folder:
            self._files.append(_glog_file(Path(folder)))
        level = os.environ.get("GLOG_minloglevel", "")  # noqa: SIM112
        self._lowest = int(level) if level.isdigit() else 0

    def __call__(self, event: Event) -> None:
        for severity, message in lines(event):
            self.write(severity, message)

    def info(self, message: str) -> None:
        self.write(INFO, message)

    def warning(self, message: str) -> None:
        self.write(WARNING, message)

    def write(self, severity: str, message: str) -> None:
        if _RANK[severity] < self._lowest:
            return
        line = prefix(severity, sys._getframe(2)) + message
        self.show(line)
        for file in self._files:
            print(line, file=file, flush=True)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prefix(severity: str, frame: object = None) -> str:
    """The start of a line written now; exactly four words, the last with its bracket."""
    stamp = datetime.now().strftime("%m%d %H:%M:%S.%f")
    code = getattr(frame, "f_code", None)
    origin = Path(code.co_filename).name if code else "cortado.py"
    return f"{severity}{stamp} {os.getpid():5d} {origin}:{getattr(frame, 'f_lineno', 1)}] "


def _open(path: Path) -> TextIO:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"log file {str(path)!r}: {error.strerror}") from None


def _glog_file(folder: Path) -> TextIO:
    """A new file in ``folder`` under glog's name, and the link ``caffe.INFO`` to it."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    host = socket.gethostname().partition(".")[0]
    name = f"caffe.{host}.{getpass.getuser()}.log.INFO.{stamp}.{os.getpid()}"
    file = _open(folder / name)
    link = folder / "caffe.INFO"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    return file
