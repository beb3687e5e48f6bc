"""Memory for batches that is used again as soon as nobody refers to it."""

from __future__ import annotations

import weakref
from collections import defaultdict, deque

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """``values``, which are on the host, on ``device``. A GPU is not waited for: it copies from
    page-locked memory, which torch keeps until that is done."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class BufferPool:
    """Hands out arrays and takes their memory back when they, and all tensors on them, are gone.

    Fresh memory costs a page fault every 4 KiB, which is as much as filling a batch. A tensor made
    by ``torch.from_numpy`` keeps its array alive, so that a batch somebody keeps is never
    overwritten. ``spare`` bounds the blocks that wait for use; ``pinned`` takes page-locked memory
    for copies to a CUDA device.
    """

    def __init__(self, spare: int, pinned: bool = False) -> None:
        self._pinned = pinned
        # A deque, because its append and pop are atomic: the garbage collector may give a block
        # back at any moment, also in the middle of a call of this thread, where a lock would hang.
        self._free: defaultdict[int, deque[NDArray[np.uint8]]] = defaultdict(
            lambda: deque(maxlen=spare)
        )

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
        """An array with undefined content."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        block = self._find(size)
        array = block[:size].view(dtype).reshape(shape)
        weakref.finalize(array, self._free[size].append, block).atexit = False
        return array

    def _find(self, size: int) -> NDArray[np.uint8]:
        try:
            return self._free[size].pop()
        except IndexError:
            pass
        if self._pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return np.empty(size, np.uint8)
