"""When snapshots are written; the files are written by a thread while training goes on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...proto.caffe_pb2 import SolverParameter
from ...proto.errors import ConfigError, CortadoError, ResourceError
from .. import events, manifest, snapshots
from ..host_memory import HostMemory
from ..lock import PrefixLock
from .base import Hook

if TYPE_CHECKING:
    from ..loop import Iteration
    from ..solver import Solver


class Snapshots(Hook):
    """Every ``snapshot`` iterations, when a signal asks for one, and at the end.

    Training waits only while weights and history are copied to the host, into memory that a thread
    has prepared, and for the previous snapshot if that is still being written. A snapshot that
    fails is reported and training goes on; only a failing final snapshot is an error.
    """

    def __init__(self, parameters: SolverParameter, device: torch.device) -> None:
        self.interval = parameters.snapshot
        self.at_end = parameters.snapshot_after_train
        self.prefix = parameters.snapshot_prefix
        #: Iteration of the newest snapshot of this run.
        self.newest: int | None = None
        self._lock = PrefixLock(self.prefix) if self.prefix else None
        self._locked = False
        self._executor: ThreadPoolExecutor | None = None
        self._host = HostMemory(device)
        self._preparing: Future[None] | None = None
        self._pending: tuple[snapshots.Snapshot, float, Future[float]] | None = None

    def before_train(self, solver: Solver) -> None:
        solver.updater.keep_difference = solver.parameters.snapshot_diff
        if self.prefix and (self.interval or self.at_end):
            self._take_lock()
        if self.prefix and self.interval and self._preparing is None:
            snapshots.prepare(solver, self._host)
            self._preparing = self._thread().submit(self._host.touch)

    def _thread(self) -> ThreadPoolExecutor:
        """The one thread that works beside training."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        return self._executor

    def _take_lock(self) -> None:
        if self._lock is None:
            raise ConfigError("snapshots need a snapshot_prefix in the solver")
        if not self._locked:
            self._lock.acquire()
            self._locked = True
            manifest.remove_leftovers(self.prefix)

    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        self._report(solver, wait=False)
        due = self.interval > 0 and solver.iteration % self.interval == 0
        if due or solver.snapshot_requested:
            self.write(solver)

    def after_train(self, solver: Solver) -> None:
        """The final snapshot, unless one was just written or is not wanted; SIGTERM wants it."""
        wanted = self.at_end or (solver.stopped_by == "SIGTERM")
        if wanted and self.newest != solver.iteration:
            self.write(solver)
        self._report(solver, wait=True, final=wanted and self.newest == solver.iteration)

    def write(self, solver: Solver, label: str = snapshots.REGULAR) -> list[Path]:
        """Take a snapshot now and have it written; its files."""
        for hook in solver.hooks:
            hook.before_snapshot(solver)
        self._take_lock()
        began = time.monotonic()
        self.wait(solver)
        if self._preparing is not None:
            self._preparing.result()
        solver.snapshot_requested = False
        snapshot = snapshots.take(solver, self._host, label)
        hdf5 = snapshot.hdf5
        solver.emit(events.SnapshotStarted(solver.iteration, str(snapshot.weights_path), hdf5))
        solver.emit(events.StateSnapshotStarted(solver.iteration, str(snapshot.state_path), hdf5))
        future = self._thread().submit(_write, snapshot)
        if label == snapshots.REGULAR:
            self.newest = solver.iteration
        self._pending = (snapshot, time.monotonic() - began, future)
        return snapshot.files

    def wait(self, solver: Solver) -> None:
        """Return when the files of the snapshot taken last are there, and say how it went."""
        self._report(solver, wait=True)

    def _report(self, solver: Solver, wait: bool, final: bool = False) -> None:
        """Say how the pending snapshot went, once it is written (or now, if ``wait``)."""
        if self._pending is None or not (wait or self._pending[2].done()):
            return
        snapshot, stall, future = self._pending
        self._pending = None
        iteration = snapshot.state.iter
        try:
            seconds = future.result()
        except (OSError, CortadoError) as error:
            if self.newest == iteration:
                self.newest = None
            reason = f"{error} (about {snapshot.bytes:,} bytes were needed)"
            if final:
                raise ResourceError(f"the final snapshot could not be written: {reason}") from error
            solver.emit(events.SnapshotFailed(iteration, str(snapshot.weights_path), reason))
            return
        finally:
            self._host.recycle()
        weights, state = str(snapshot.weights_path), str(snapshot.state_path)
        solver.emit(events.SnapshotWritten(iteration, weights, state, stall, seconds))

    def close(self, solver: Solver) -> None:
        try:
            self.wait(solver)
        finally:
            if self._executor is not None:
                self._executor.shutdown()
                self._executor = None
            if self._locked and self._lock is not None:
                self._lock.release()
                self._locked = False


def _write(snapshot: snapshots.Snapshot) -> float:
    began = time.monotonic()
    snapshot.write()
    return time.monotonic() - began
