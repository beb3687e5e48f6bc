"""Memory that snapshots are copied to: used again, held only where there is enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.netdef import memory
from cortado.proto.weights import read_weights
from cortado.solvers import events
from cortado.solvers.host_memory import HostMemory
from support.runs import Recorder, small_solver

CPU = torch.device("cpu")


def test_copies_have_the_axes_in_order_and_a_life_of_their_own() -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    host = HostMemory(CPU)
    first, second = host.copy(tensor), host.copy(tensor)
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, tensor.numpy())
    first[:] = 0
    assert second.any()
    assert host.copy(torch.tensor(3.0)).shape == ()


def test_arrays_are_used_again_once_nobody_uses_them() -> None:
    host = HostMemory(CPU)
    first = host.copy(torch.ones(6))
    assert not np.shares_memory(first, host.copy(torch.ones(6)))
    host.recycle()
    again = [host.copy(torch.full((2, 3), value)) for value in (2.0, 3.0)]
    assert sum(np.shares_memory(first, array) for array in again) == 1


@pytest.mark.parametrize("prepared", [True, False])
def test_nothing_is_held_where_memory_is_short(
    prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda: 95)  # 24 bytes are more than a quarter of it
    host = HostMemory(CPU)
    first = host.empty(torch.ones(6))
    (host.touch if prepared else host.recycle)()
    assert not np.shares_memory(first, host.copy(torch.ones(6)))


def test_snapshots_in_the_same_memory_are_those_of_their_moments(tmp_path: Path) -> None:
    over_time: list[list[torch.Tensor]] = []
    stalls: list[float] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.SnapshotWritten):
            stalls.append(event.stall)

    with small_solver(tmp_path, "snapshot: 1 ema_decay: 0.5", listeners=[listen]) as solver:
        solver.hooks.insert(0, Recorder(over_time))
        solver.solve()
    for number, weights in enumerate(over_time, 1):
        layers = {b.name: b for b in read_weights(tmp_path / f"run_iter_{number}.caffemodel")}
        np.testing.assert_array_equal(layers["ip1"].blobs[0].data, weights[0].numpy())
    assert len(stalls) == 8


def test_free_memory_is_a_part_of_all() -> None:
    assert 0 < memory.free() <= memory.available(CPU)
