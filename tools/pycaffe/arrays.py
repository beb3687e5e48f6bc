"""One array of a blob, data or diff: a tensor that is seen through a writable numpy view.

On the CPU the view is the tensor's memory, made when somebody asks for it. A view that is still
held stays the blob's memory: what a later pass computes is copied into it, as in Caffe, where a
blob never moves. On other devices the view is a copy on the host, fetched when it is asked for and
written back before the device computes next.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Array:
    """A float32 array of ``shape`` that is allocated when it is first needed.

    ``initial`` is its value before anything is computed.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device, initial: float = 0.0) -> None:
        self.shape = shape
        self.device = device
        self.initial = initial
        #: Whether no other blob's array may be the same memory.
        self.owned = True
        #: Whether the tensor must stay where it is, be its layout what it may.
        self.fixed = False
        self._tensor: Tensor | None = None
        self._view: Callable[[], np.ndarray | None] | None = None
        self._host: np.ndarray | None = None
        self._fetched = False

    @property
    def tensor(self) -> Tensor:
        """The values on the device; without a gradient history."""
        if self._tensor is None:
            self._tensor = torch.full(self.shape, self.initial, device=self.device)
        return self._tensor

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever computed, written or looked at."""
        return self._tensor is None

    def put(self, tensor: Tensor, owned: bool = True) -> None:
        """Hold the values of ``tensor`` from now on; it may be used itself, not copied."""
        if self._view is not None:
            view = self._view()
            if view is None:
                self._view = None
            elif self._tensor is not None and view.shape == tuple(tensor.shape):
                if tensor.data_ptr() != self._tensor.data_ptr():
                    np.copyto(view, tensor.detach().numpy())
                return
            else:
                self._view = None
        self._tensor = tensor
        self.shape = tuple(tensor.shape)
        self.owned = owned
        self._fetched = False

    def release(self) -> None:
        """Free memory that nobody looks at: new values are about to come."""
        if self._view is not None and self._view() is None:
            self._view = None
        if self._view is None:
            self._tensor = None

    def view(self) -> np.ndarray:
        """The values as a numpy array; what is written into it counts."""
        if self.device.type == "cpu":
            return self._memory()
        if self._host is None or self._host.shape != self.shape:
            self._host = np.empty(self.shape, np.float32)
            self._fetched = False
        if not self._fetched:
            self._host[...] = self.tensor.detach().cpu().numpy()
            self._fetched = True
        return self._host

    def _memory(self) -> np.ndarray:
        tensor = self.tensor
        view = self._view() if self._view is not None else None
        if view is not None:
            return view
        if not self.owned:
            tensor = self._tensor = tensor.clone(memory_format=torch.contiguous_format)
            self.owned = True
        elif tensor.dtype != torch.float32 or not (self.fixed or tensor.is_contiguous()):
            tensor = self._tensor = tensor.detach().float().contiguous()
        array: np.ndarray = tensor.detach().numpy()
        self._view = weakref.ref(array)
        return array

    def push(self) -> None:
        """Bring what was written into the host's copy to the device."""
        if self._fetched and self._host is not None:
            self.tensor.copy_(torch.from_numpy(self._host))
            self._fetched = False

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Take another shape; the first values stay, in order, and further ones are 0."""
        if shape == self.shape:
            return
        self.push()
        old, self._tensor = self._tensor, None
        self.shape, self._view, self._host = shape, None, None
        if old is not None:
            kept = min(old.numel(), math.prod(shape))
            new = torch.zeros(math.prod(shape), device=self.device)
            new[:kept] = old.detach().flatten()[:kept]
            self._tensor = new.view(shape)
            self.owned = True

    def move(self, device: torch.device) -> None:
        """Live on another device."""
        if device == self.device:
            return
        self.push()
        self.device = device
        self._view = self._host = None
        if self._tensor is not None:
            self._tensor = self._tensor.to(device)
