"""What pycaffe keeps for the whole process: the device, seeds, ranks and the log."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass

import torch

from ..output import glog

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _State:
    gpu: bool = False
    device_id: int = 0
    solver_count: int = 1
    solver_rank: int = 0
    multiprocess: bool = False


_state = _State()


def set_mode_cpu() -> None:
    """Run nets on the CPU from now on."""
    _state.gpu = False


def set_mode_gpu() -> None:
    """Run nets on the GPU from now on; without a CUDA device, warn and stay on the CPU."""
    if not torch.cuda.is_available():
        warnings.warn("there is no CUDA device: nets stay on the CPU", stacklevel=2)
        return
    _state.gpu = True


def set_device(device_id: int) -> None:
    """Choose the GPU that GPU mode means."""
    _state.device_id = int(device_id)


def device() -> torch.device:
    """Where nets run now."""
    return torch.device("cuda", _state.device_id) if _state.gpu else torch.device("cpu")


def set_random_seed(seed: int) -> None:
    """Seed what fills weights, drops out and shuffles."""
    torch.manual_seed(int(seed))


def derived_seed() -> int:
    """A seed for a net or solver that states none: from torch's generator, so that
    :func:`set_random_seed` decides it too."""
    return int(torch.randint(2**31 - 1, ()).item())


def solver_count() -> int:
    """How many solvers train together."""
    return _state.solver_count


def set_solver_count(count: int) -> None:
    """State how many solvers train together; here only 1 works (see :class:`.parallel.NCCL`)."""
    _state.solver_count = int(count)


def solver_rank() -> int:
    """The number of this process among those that train together."""
    return _state.solver_rank


def set_solver_rank(rank: int) -> None:
    """State the number of this process."""
    _state.solver_rank = int(rank)


def set_multiprocess(value: bool) -> None:
    """State whether several processes train together."""
    _state.multiprocess = bool(value)


def init_log(level: int | None = None, stderr: bool = True) -> None:
    """Send log lines of ``level`` (0 INFO to 3 FATAL) and above to standard error, if ``stderr``.

    Without a level the environment's ``GLOG_minloglevel`` decides, as it does when this is never
    called.
    """
    if level is None:
        text = os.environ.get("GLOG_minloglevel", "0")  # noqa: SIM112
        level = int(text) if text.isdigit() else 0
    levels = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    glog.ROOT.setLevel(levels[min(max(level, 0), 3)])
    if glog.TERMINAL in glog.ROOT.handlers and not stderr:
        glog.ROOT.removeHandler(glog.TERMINAL)
    elif stderr and glog.TERMINAL not in glog.ROOT.handlers:
        glog.ROOT.addHandler(glog.TERMINAL)


def ensure_log() -> None:
    """Start the log unless something has done so."""
    if glog.ROOT.level == logging.NOTSET:
        init_log()


def log(message: str) -> None:
    """Write a line to the log, as INFO."""
    ensure_log()
    _log.info("%s", message)
