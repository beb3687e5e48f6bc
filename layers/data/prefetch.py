"""Filling batches ahead of their use, in threads, and handing them out in order."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import cv2

from ...proto.errors import ResourceError

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Batch = TypeVar("Batch")

#: A batch that takes longer than this many seconds is taken for a loader that hangs.
STALL_SECONDS = 300.0


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Prefetcher(Generic[Job, Batch]):
    """Runs ``load(plan())`` ahead in threads; :meth:`next` gives the results in order of planning.

    ``plan`` says what the next batch consists of; it is called by one thread at a time, in order,
    so that it may keep a position. ``load`` does the work of one batch and runs in ``threads``
    threads at once. At most ``depth`` batches are planned and not yet handed out. An error in
    either is raised by the :meth:`next` whose batch it concerns. Neither may refer to the
    prefetcher or its owner, so that these can be collected, which ends the threads.
    """

    def __init__(
        self,
        plan: Callable[[], Job],
        load: Callable[[Job], Batch],
        *,
        depth: int,
        threads: int | None = None,
        name: str = "loader",
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        cv2.setNumThreads(0)
        self._process = os.getpid()
        self._name = name
        self._stall_seconds = stall_seconds
        self._line = _Line(max(1, depth))
        count = min(self._line.depth, threads or available_cores())
        self._threads = [
            threading.Thread(
                target=_work,
                args=(self._line, plan, load),
                name=f"{name}-{number}",
                # A forgotten prefetcher must not keep the interpreter from ending.
                daemon=True,
            )
            for number in range(count)
        ]
        self._stop = weakref.finalize(self, _stop, self._line, self._threads)
        for thread in self._threads:
            thread.start()

    def next(self) -> Batch:
        """The next batch, waiting for it if needed.

        Raises what ``plan`` or ``load`` raised for it, and ResourceError where none can come: after
        a fork, after the threads died, or when a batch takes longer than ``stall_seconds``.
        """
        if os.getpid() != self._process:
            raise ResourceError(
                f"{self._name}: its threads do not exist in a forked process; "
                "build the net in the process that uses it"
            )
        line, started = self._line, time.monotonic()
        with line.condition:
            while line.delivered not in line.ready:
                if line.stopped:
                    raise ResourceError(f"{self._name}: closed while a batch was asked for")
                if not any(thread.is_alive() for thread in self._threads):
                    raise ResourceError(f"{self._name}: its threads died without an error")
                if time.monotonic() - started > self._stall_seconds:
                    raise ResourceError(
                        f"{self._name}: no batch within {self._stall_seconds:.0f} s; "
                        "the storage or a loader thread hangs"
                    )
                line.condition.wait(timeout=min(1.0, self._stall_seconds))
            outcome = line.ready.pop(line.delivered)
            line.delivered += 1
            line.condition.notify_all()
        if isinstance(outcome, _Failure):
            self.close()
            raise outcome.error
        return outcome

    def close(self) -> None:
        """End the threads, after the batches they are at."""
        self._stop()


class _Failure:
    """An error in place of a batch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Line:
    """What consumer and threads share: batches are numbered in the order of planning."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.planning = threading.Lock()
        self.condition = threading.Condition()
        self.planned = 0
        self.delivered = 0
        self.ready: dict[int, Any] = {}
        self.stopped = False

    def take_number(self) -> int | None:
        """The number of the next batch to plan, once there is room for it; None to stop."""
        with self.condition:
            while not self.stopped and self.planned - self.delivered >= self.depth:
                self.condition.wait()
            if self.stopped:
                return None
            self.planned += 1
            return self.planned - 1

    def put(self, number: int, outcome: Any) -> None:
        with self.condition:
            self.ready[number] = outcome
            self.condition.notify_all()


def _work(line: _Line, plan: Callable[[], Job], load: Callable[[Job], Batch]) -> None:
    while True:
        with line.planning:
            number = line.take_number()
            if number is None:
                return
            try:
                job = plan()
            except BaseException as error:
                line.put(number, _Failure(error))
                return
        try:
            outcome: Any = load(job)
        except BaseException as error:
            outcome = _Failure(error)
        line.put(number, outcome)
        # Nothing may keep the memory of a batch that the consumer is done with.
        del job, outcome


def _stop(line: _Line, threads: list[threading.Thread]) -> None:
    with line.condition:
        line.stopped = True
        line.ready.clear()
        line.condition.notify_all()
    if threading.current_thread() not in threads:
        for thread in threads:
            thread.join(timeout=10.0)
