"""Memory of the host that snapshots are copied to, used again from one to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..netdef import memory

#: The part of the host's free memory that may be held between snapshots.
_SHARE = 0.25


class HostMemory:
    """Arrays that tensors are copied to.

    Most of the time of a copy into fresh memory goes into touching its pages, and training waits
    for it. So the arrays are kept (:meth:`recycle`) unless they would take more than a quarter of
    the memory that is free, and may be made ahead (:meth:`empty`, then :meth:`touch`). For a GPU
    they are pinned, and copies run while the program goes on (:meth:`pending`).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: dict[int, list[Tensor]] = defaultdict(list)
        self._used: list[Tensor] = []

    def empty(self, tensor: Tensor) -> np.ndarray:
        """An array for ``tensor``: its shape, the axes in order, float32, any content."""
        free = self._free[tensor.numel()]
        flat = free.pop() if free else self._new(tensor.numel())
        self._used.append(flat)
        return flat.numpy().reshape(tensor.shape)

    def _new(self, size: int) -> Tensor:
        if self._device.type == "cuda":
            return torch.empty(size, pin_memory=True)
        return torch.from_numpy(np.empty(size, np.float32))  # numpy's memory comes in huge pages

    def copy(self, tensor: Tensor) -> np.ndarray:
        """The values of ``tensor``; from a GPU they are there once :meth:`pending` says so."""
        array = self.empty(tensor)
        torch.from_numpy(array).copy_(tensor.detach(), non_blocking=True)
        return array

    def pending(self) -> Callable[[], None]:
        """A function that returns when all copies that were begun so far are done."""
        if self._device.type != "cuda":
            return lambda: None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize

    @property
    def is_affordable(self) -> bool:
        """Whether there is memory enough to hold the arrays between snapshots."""
        kept = [flat for group in self._free.values() for flat in group]
        return sum(flat.nbytes for flat in (*kept, *self._used)) <= _SHARE * memory.free()

    def recycle(self) -> None:
        """Nobody uses the arrays that were given out any more."""
        if self.is_affordable:
            for flat in self._used:
                self._free[flat.numel()].append(flat)
        else:
            self._free.clear()
        self._used.clear()

    def touch(self) -> None:
        """Let the system provide the pages of the arrays that were given out, if it has enough."""
        if self.is_affordable:
            for flat in self._used:
                flat.zero_()
        self.recycle()
