"""``caffe.Timer``: how long work on the device takes."""

from __future__ import annotations

import time

import torch

from . import mode


class Timer:
    """Time between :meth:`start` and :meth:`stop`; on a GPU, of the work that was queued."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._ended: float | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._began, self._ended = _now(), None

    def stop(self) -> None:
        """End the measurement."""
        if self._began is not None and self._ended is None:
            self._ended = _now()

    @property
    def ms(self) -> float:
        """Milliseconds measured; stops a timer that runs, and is 0 for one never started."""
        self.stop()
        if self._began is None or self._ended is None:
            return 0.0
        return (self._ended - self._began) * 1000


def _now() -> float:
    if mode.device().type == "cuda":
        torch.cuda.synchronize(mode.device())
    return time.perf_counter()
