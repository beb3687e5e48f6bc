"""What happens during a run, as plain values that listeners receive.

A listener is any callable that takes an event (``solver.listeners.append(print)``): the log file,
the terminal, a plotter and a web page all read this one stream. Values are plain Python numbers,
already brought from the device. Each class says which of Caffe's log lines it stands for.

The order of a run, as in Caffe (a block in brackets comes only where the solver asks for it)::

    NetCreated, NetBuilt (train), NetCreated, NetBuilt (each test net), SolverReady
    [WeightsLoaded ...]
    TrainingStarted, [Restored]
    [CachingFeatures ...]                                   features of the frozen layers
    every iteration:
        [TestStarted, TestFinished | TestInterrupted]       for each test net, before training
        [Displayed]                                         loss and outputs of this iteration
        [StepAdvanced] [RateDisplayed] [GradientsClipped]   while the update is made
        [SnapshotStarted, StateSnapshotStarted, SnapshotWritten]    counting the update just made
    [SnapshotStarted, StateSnapshotStarted, SnapshotWritten]    final snapshot
    TrainingStopped                                         after a stop signal or early stopping
    or [FinalLoss] [TestStarted, TestFinished] TrainingFinished

``SnapshotWritten`` and ``SnapshotFailed`` may come later than their place in this list, because
files are written in the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..netdef.description import NetDescription


class Event:
    """Base of all events."""

    __slots__ = ()


Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Output:
    """One scalar element of a net output: a blob of n elements gives n of them, in order.

    Caffe's lines ``    Train net output #<i>: <blob> = <value>`` (``Test`` in a TestFinished),
    followed by `` (* <loss_weight> = <loss_weight * value> loss)`` if ``loss_weight`` is not 0;
    ``i`` counts the elements over all blobs.
    """

    blob: str
    value: float
    loss_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class NetCreated(Event):
    """A net was built: ``Creating training net from net file: <source>`` for ``phase`` "TRAIN"
    (``index`` None), ``Creating test net (#<index>) specified by net file: <source>`` for "TEST".

    ``origin`` is the solver's field that named it (net, net_param, train_net, test_net_param ...);
    ``source`` the path, empty for a net written inside the solver.
    """

    phase: str
    index: int | None
    origin: str
    source: str


@dataclass(frozen=True, slots=True)
class NetBuilt(Event):
    """The net of the NetCreated before it stands: Caffe's lines from ``Creating Layer`` to
    ``Network initialization done.``"""

    net: NetDescription


@dataclass(frozen=True, slots=True)
class SolverReady(Event):
    """All nets are built: ``Solver scaffolding done.``"""


@dataclass(frozen=True, slots=True)
class WeightsLoaded(Event):
    """``Finetuning from <path>``, then ``Ignoring source layer <name>`` for each of ``ignored``.

    Sent for the train net (``index`` None) and for each test net. ``table`` says of the train net
    what happened (copied, re-initialised ...) to which layers.
    """

    path: str
    index: int | None
    ignored: tuple[str, ...] = ()
    table: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingStarted(Event):
    """``Solving <net>`` and ``Learning Rate Policy: <policy>``."""

    net: str
    policy: str
    iteration: int
    max_iter: int


@dataclass(frozen=True, slots=True)
class Restored(Event):
    """``Restoring previous solver status from <path>``; ``iteration`` is where it continues."""

    path: str
    iteration: int


@dataclass(frozen=True, slots=True)
class TestStarted(Event):
    """``Iteration <iteration>, Testing net (#<index>)``; ``weights`` is "ema" for averaged weights,
    a pass beyond Caffe that has no line of its own there."""

    iteration: int
    index: int
    weights: str = ""


@dataclass(frozen=True, slots=True)
class TestProgress(Event):
    """Batch ``batch`` of ``batches`` of a test is done (no log line; for progress bars)."""

    iteration: int
    index: int
    batch: int
    batches: int


@dataclass(frozen=True, slots=True)
class TestFinished(Event):
    """``Test loss: <loss>`` if ``loss`` is not None, then the ``Test net output`` lines (means)."""

    iteration: int
    index: int
    outputs: tuple[Output, ...]
    loss: float | None = None
    weights: str = ""


@dataclass(frozen=True, slots=True)
class TestInterrupted(Event):
    """``Test interrupted.`` (a stop was requested between two test batches)."""

    iteration: int
    index: int


@dataclass(frozen=True, slots=True)
class IterationDone(Event):
    """An update was made (no log line, every iteration; carries nothing from the device)."""

    iteration: int


@dataclass(frozen=True, slots=True)
class Displayed(Event):
    """``Iteration <iteration> (<rate> iter/s, <seconds>s/<interval> iters), loss = <loss>`` and the
    ``Train net output`` lines; ``loss`` is the mean over the last ``average_loss`` iterations."""

    iteration: int
    rate: float
    seconds: float
    interval: int
    loss: float
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class StepAdvanced(Event):
    """``MultiStep Status: Iteration <iteration>, step = <step>`` (comes before the rate's line)."""

    iteration: int
    step: int


@dataclass(frozen=True, slots=True)
class RateDisplayed(Event):
    """``Iteration <iteration>, lr = <rate>`` (display iterations only)."""

    iteration: int
    rate: float


@dataclass(frozen=True, slots=True)
class GradientsClipped(Event):
    """``Gradient clipping: scaling down gradients (L2 norm <norm> > <limit>) by scale factor
    <scale>``; sent in display iterations only, so that other iterations need not wait for the
    device."""

    iteration: int
    norm: float
    limit: float
    scale: float


@dataclass(frozen=True, slots=True)
class DebugLine(Event):
    """One line of ``debug_info: true`` (without the four leading blanks), display iterations."""

    text: str


@dataclass(frozen=True, slots=True)
class SnapshotStarted(Event):
    """``Snapshotting to binary proto file <path>`` or ``Snapshotting to HDF5 file <path>``."""

    iteration: int
    path: str
    hdf5: bool


@dataclass(frozen=True, slots=True)
class StateSnapshotStarted(Event):
    """``Snapshotting solver state to binary proto file <path>`` or ``... to HDF5 file <path>``."""

    iteration: int
    path: str
    hdf5: bool


@dataclass(frozen=True, slots=True)
class SnapshotWritten(Event):
    """Both files are complete on disk (no Caffe line). ``stall`` is how long training waited and
    ``seconds`` how long it took in all."""

    iteration: int
    weights: str
    state: str
    stall: float
    seconds: float


@dataclass(frozen=True, slots=True)
class SnapshotFailed(Event):
    """A snapshot could not be written and training goes on: a warning with path and reason."""

    iteration: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something worth a line that Caffe has no line for (a lock taken over, a default chosen)."""

    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class CachingFeatures(Event):
    """The frozen layers of a net ("train net", "test net #0") have run for ``done`` of ``total``
    records (no Caffe line); it takes about ``seconds`` more. Sent every few seconds."""

    net: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FinalLoss(Event):
    """``Iteration <iteration>, loss = <loss>`` (after the last update, no rate bracket)."""

    iteration: int
    loss: float


@dataclass(frozen=True, slots=True)
class TrainingStopped(Event):
    """``Optimization stopped early.``, after a line of our own with ``reason``: a signal, early
    stopping."""

    iteration: int
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingFinished(Event):
    """``Optimization Done.`` (the tool prints it a second time, as Caffe's does)."""

    iteration: int
