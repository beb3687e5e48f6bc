"""The solver: builds the nets a solver prototxt names, trains them, and keeps everything a run is.

solver = Solver("solver.prototxt")
solver.listeners.append(print)
solver.solve()
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals as SignalNumber
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from ..netdef import Net
from ..netdef.description import describe
from ..netdef.execution import prepared_process
from ..proto.caffe_pb2 import SolverParameter
from ..proto.errors import ConfigError, Fault, ResourceError
from ..proto.files import read_solver
from ..proto.positions import Document
from ..proto.upgrade import upgrade_solver
from . import checks, events, fine_tuning, loop, nets, restore, scaling, schedules, snapshots
from .early_update import updater_for
from .hooks import Hook
from .hooks.assembly import standard_hooks
from .hooks.signals import Signals
from .hooks.snapshots import Snapshots
from .hooks.testing import run_tests
from .requirements import SolverDocument, place

SolverSource = str | Path | SolverParameter | Document[SolverParameter]
H = TypeVar("H", bound=Hook)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``stopped_by`` is None if it was completed, otherwise the reason (the name
    of a signal, "early stopping"); ``signal`` is the signal, if it was one."""

    iteration: int
    stopped_by: str | None = None
    signal: SignalNumber | None = None


class Solver:
    """A training run: nets, parameters' history, position, hooks and listeners.

    Args:
        source: path of a solver prototxt, a SolverParameter, or a Document read before.
        device: "cpu", "cuda", "cuda:1" ...; by default the CPU unless the solver says
            ``solver_mode: GPU`` in so many words.
        level, stages: joined to the train net's state, as the command line's flags are.
        weights: weights files to start from, in place of the solver's own ``weights``; each may be
            a comma list, applied in order.
        fresh: shell patterns of layers that keep their fillers' values when weights are loaded.
        listeners: called with every event of the run.
        sigint, sighup: the signals' effects, "stop", "snapshot" or "none".

    Raises ConfigError with every fault of solver and nets before anything is trained.
    """

    def __init__(
        self,
        source: SolverSource,
        *,
        device: torch.device | str | None = None,
        level: int = 0,
        stages: Sequence[str] = (),
        weights: Sequence[str | Path] | None = None,
        fresh: Sequence[str] = (),
        listeners: Iterable[events.Listener] = (),
        sigint: str = "stop",
        sighup: str = "snapshot",
    ) -> None:
        self.listeners: list[events.Listener] = list(listeners)
        self.document: SolverDocument = _read(source)
        checks.check(self.document)
        self.parameters: SolverParameter = self.document.message
        self.device = choose_device(self.document, device)
        self.seed = _seed(self.parameters)
        torch.manual_seed(self.seed)
        self.execution = scaling.execution_of(self.parameters).resolved(self.device)
        self.scaler = scaling.scaler_for(self.execution, self.device)
        self.iteration = 0
        #: Caffe's current_step: drops of the rate so far.
        self.current_step = 0
        self.stopped_by: str | None = None
        self._signal: SignalNumber | None = None
        self.snapshot_requested = False
        self._training = False
        self.net, self.test_nets = self._build(level, stages)
        schedules.resolve(self.document, self.net, self.test_nets)
        given = self.parameters.weights if weights is None else [str(each) for each in weights]
        self._load(given, fresh)
        self.updater = updater_for(self.net, self.parameters, self.scaler)
        snapshots.check_size(self.document, self.net, self.updater.rule.slots)
        #: Seconds of training in earlier runs that this one continues.
        self.earlier_seconds = 0.0
        self._began = time.monotonic()
        self.hooks: list[Hook] = standard_hooks(self.parameters, self.net, sigint, sighup)

    # -- building ----------------------------------------------------------------------------------

    def _build(self, level: int, stages: Sequence[str]) -> tuple[Net, list[Net]]:
        definition = nets.train_definition(self.document, level, stages)
        self.emit(events.NetCreated("TRAIN", None, definition.origin, definition.source))
        train = definition.build(str(self.device), execution=self.execution)
        restore.apply_param_rules(self.document, train)
        self.emit(events.NetBuilt(describe(train)))
        tests = []
        for index, definition in enumerate(nets.test_definitions(self.document)):
            self.emit(events.NetCreated("TEST", index, definition.origin, definition.source))
            tests.append(definition.build(str(self.device), train, self.execution))
            self.emit(events.NetBuilt(describe(tests[-1])))
        for net in (train, *tests):
            for step in net.sources:
                step.source.seed(self.seed)
        self.emit(events.SolverReady())
        return train, tests

    def _load(self, weights: Sequence[str], fresh: Sequence[str]) -> None:
        """Fine-tune: copy weights into the train net and into what only test nets have."""
        fine_tuning.check_patterns(fresh, self.net)
        paths = [name for entry in weights for part in entry.split(",") if (name := part.strip())]
        for path in paths:
            for index, net in enumerate((self.net, *self.test_nets)):
                report = net.load(path, fresh)
                which = index - 1 if index else None
                table = () if index else tuple((what, tuple(of)) for what, of in report.groups())
                self.emit(events.WeightsLoaded(path, which, tuple(report.ignored), table))

    # -- running -----------------------------------------------------------------------------------

    def solve(self, resume: str | Path | None = None, *, accept_changes: bool = False) -> Outcome:
        """Train to max_iter, from the snapshot ``resume`` if given; returns how it ended."""
        parameters = self.parameters
        if not parameters.HasField("max_iter"):
            raise ConfigError(Fault("max_iter (or max_epoch) must be given", place(self.document)))
        if parameters.snapshot_after_train and not parameters.snapshot_prefix:
            raise ConfigError(
                Fault(
                    "snapshot_prefix must be given (or snapshot_after_train: false)",
                    place(self.document),
                )
            )
        self.emit(
            events.TrainingStarted(
                self.net.name, parameters.lr_policy, self.iteration, parameters.max_iter
            )
        )
        if resume is not None:
            self.restore(resume, accept_changes)
        self._train(parameters.max_iter, whole=True)
        return Outcome(self.iteration, self.stopped_by, self._signal)

    def step(self, iterations: int) -> None:
        """Train for ``iterations`` iterations, without the final snapshot, display and test."""
        self._train(self.iteration + iterations, whole=False)

    def _train(self, until: int, whole: bool) -> None:
        self.stopped_by = self._signal = None
        self._training = True
        try:
            for hook in self.hooks:
                hook.before_train(self)
            with prepared_process(self.device, self.parameters.threads):
                loop.run(self, until)
                if whole:
                    self._conclude()
        finally:
            self._training = False
            for hook in self.hooks:
                hook.close(self)

    def _conclude(self) -> None:
        for hook in self.hooks:
            hook.after_train(self)
        if self.stopped_by is not None:
            self.emit(events.TrainingStopped(self.iteration, self.stopped_by))
            return
        for hook in self.hooks:
            hook.finish(self)
        if self.stopped_by is None:
            self.emit(events.TrainingFinished(self.iteration))

    def forward_backward(self) -> loop.Iteration:
        """The passes of one iteration, which leave their gradients in the parameters."""
        return loop.forward_backward(self)

    def clear_gradients(self) -> None:
        """Forget the gradients of the last iteration."""
        self.updater.clear_gradients()

    def make_pass(self, index: int) -> loop.Pass:
        """Pass ``index`` of an iteration, which adds its gradients to the parameters'."""
        return loop.make_pass(self, index)

    def test_batch(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs and loss of test net ``index`` for its next batch."""
        net = self.test_nets[index]
        return net.run(net.next_batch())

    def test_all(self) -> None:
        """Run all test nets now."""
        run_tests(self)

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return loop.learning_rate(self.iteration, self.parameters, self.current_step).value

    @property
    def seconds(self) -> float:
        """Wall time of this run and of those it continues."""
        return self.earlier_seconds + time.monotonic() - self._began

    # -- requests ----------------------------------------------------------------------------------

    def stop(self, reason: str, number: SignalNumber | None = None) -> None:
        """End the run at the next boundary; the first reason is kept."""
        if self.stopped_by is None:
            self.stopped_by, self._signal = reason, number

    def request_snapshot(self) -> None:
        """Write a snapshot at the next boundary."""
        self.snapshot_requested = True

    def obey_requests(self) -> None:
        """Do now what signals have asked for; called between test batches."""
        for hook in self._hooks_of(Signals):
            hook.obey(self)
        if self.snapshot_requested:
            self.snapshot()

    # -- snapshots ---------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Write weights and state as ``<snapshot_prefix>_iter_<iteration>`` and its endings.

        While training runs they are written in the background; otherwise this waits for it.
        """
        for hook in self._hooks_of(Snapshots):
            hook.write(self)
            if not self._training:
                hook.close(self)

    def restore(self, path: str | Path, accept_changes: bool = False) -> None:
        """Continue from a .solverstate (or .solverstate.h5) of this program or of Caffe.

        SnapshotError if it is damaged, belongs to another net or solver type, or, unless
        ``accept_changes``, if net or solver were edited since.
        """
        snapshots.load(self, Path(path), accept_changes)
        self.emit(events.Restored(str(path), self.iteration))

    # -- the rest ----------------------------------------------------------------------------------

    def emit(self, event: events.Event) -> None:
        """Hand ``event`` to every listener."""
        for listener in self.listeners:
            listener(event)

    def _hooks_of(self, kind: type[H]) -> list[H]:
        return [hook for hook in self.hooks if isinstance(hook, kind)]

    def close(self) -> None:
        """End the data sources' threads and what hooks still do in the background."""
        for hook in self.hooks:
            hook.close(self)
        for net in (self.net, *self.test_nets):
            net.close()

    def __enter__(self) -> Solver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _read(source: SolverSource) -> SolverDocument:
    if isinstance(source, str | Path):
        return read_solver(source)
    if isinstance(source, SolverParameter):
        source = Document(source)
    return Document(upgrade_solver(source.message), source.root, source.variables)


def _seed(parameters: SolverParameter) -> int:
    """random_seed, or one from the system where it is negative."""
    return parameters.random_seed if parameters.random_seed >= 0 else secrets.randbits(31)


def choose_device(document: SolverDocument, device: torch.device | str | None) -> torch.device:
    """``device`` if given; otherwise the GPU if solver_mode explicitly asks for it, or the CPU."""
    solver = document.message
    if device is None:
        wants_gpu = solver.HasField("solver_mode") and solver.solver_mode == SolverParameter.GPU
        device = f"cuda:{solver.device_id}" if wants_gpu else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        if (chosen.index or 0) >= count:
            raise ResourceError(
                f"GPU {chosen.index or 0} is asked for, but torch can use {count} on this machine; "
                "write solver_mode: CPU to train without, or choose another"
            )
    return chosen
