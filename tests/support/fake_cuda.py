"""CUDA's streams, events and generators as a log, so that what is asked of them shows without one.

Tensors are fake and on a CUDA device that is not the current one, which is where a stream, an event
or a generator of the wrong device goes unnoticed on machines with a single GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICE = torch.device("cuda:1")


class Log(list[str]):
    """What was asked of CUDA, in order; operations on tensors are not in it."""

    def __init__(self) -> None:
        super().__init__()
        self.current: Stream | None = None


class Stream:
    def __init__(self, log: Log, name: str, device: object) -> None:
        self._log = log
        self.name = f"{name} of {torch.device(str(device))}"

    def wait_event(self, event: Event) -> None:
        self._log.append(f"{self.name} waits for {event.name}")


class Event:
    def __init__(self, log: Log) -> None:
        self._log = log
        self.name = "event"

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self._log.current or Stream(self._log, "current", "cuda:0")
        self._log.append(f"event in {stream.name}")

    def synchronize(self) -> None:
        self._log.append("host waits for event")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Fake tensors may be on CUDA devices, and torch.cuda writes a log in place of working."""
    log = Log()

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        before, log.current = log.current, chosen
        yield
        log.current = before

    def current_stream(device: object = "cuda:0") -> Stream:
        return log.current or Stream(log, "current", device)

    def pinned(tensor: Tensor) -> Tensor:
        log.append("pinned")
        return tensor

    def state(device: object = "cuda:0") -> Tensor:
        log.append(f"generator of {device}")
        return torch.ones(16, dtype=torch.uint8)

    def set_state(value: Tensor, device: object = "cuda:0") -> None:
        log.append(f"generator of {device} is set")

    def record_stream(tensor: Tensor, used_in: Stream) -> None:
        log.append(f"memory used in {used_in.name}")

    stands_in: dict[str, Any] = {
        "Stream": lambda device: Stream(log, "own", device),
        "Event": lambda **_: Event(log),
        "stream": stream,
        "current_stream": current_stream,
        "get_rng_state": state,
        "set_rng_state": set_state,
    }
    for name, stand_in in stands_in.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "record_stream", record_stream)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield log
