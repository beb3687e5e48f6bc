"""Blobs as scripts see them: ``data`` and ``diff`` as numpy arrays, and their shape."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...layers.base import Shape
from .arrays import Array


class Blob:
    """What is common to blobs between layers and to parameters."""

    @property
    def data(self) -> np.ndarray:
        """The values, float32, as an array that can be written into."""
        raise NotImplementedError

    @property
    def diff(self) -> np.ndarray:
        """The gradient, float32, as an array that can be written into."""
        raise NotImplementedError

    @property
    def shape(self) -> Shape:
        raise NotImplementedError

    def reshape(self, *shape: int) -> None:
        """Take another shape, given as so many numbers."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise RuntimeError(
                f"num, channels, height and width are for blobs of at most 4 axes, "
                f"got shape {self.shape}"
            )
        return self.shape[axis] if axis < len(self.shape) else 1

    num = property(lambda self: self._legacy(0))
    channels = property(lambda self: self._legacy(1))
    height = property(lambda self: self._legacy(2))
    width = property(lambda self: self._legacy(3))


class NetBlob(Blob):
    """A blob that layers produce: it keeps what the last pass computed.

    ``loss_weight`` is what its gradient begins with: the weight of each element in the loss.
    ``may_share`` says whether it may be the memory of the bottom it was made of, as in Caffe;
    ``origins`` are those bottoms.
    """

    def __init__(self, shape: Shape, device: torch.device, loss_weight: float = 0.0) -> None:
        self.values = Array(shape, device)
        self.gradient = Array(shape, device, loss_weight)
        self.loss_weight = loss_weight
        self.may_share = True
        self.origins: list[NetBlob] = []

    @property
    def data(self) -> np.ndarray:
        if not self.may_share and self._shares():
            self.values.owned = False
        return self.values.view()

    @property
    def diff(self) -> np.ndarray:
        return self.gradient.view()

    @property
    def shape(self) -> Shape:
        return self.values.shape

    def reshape(self, *shape: int) -> None:
        self.values.reshape(tuple(map(int, shape)))
        self.gradient.reshape(self.values.shape)

    def put(self, values: Tensor) -> None:
        """Hold the result of a layer."""
        if values.shape != self.values.shape:
            self.gradient.reshape(tuple(values.shape))
        self.values.put(values)

    def _shares(self) -> bool:
        """Whether a layer that should have copied handed its bottom through."""
        if self.values.untouched:
            return False
        own = self.values.tensor.untyped_storage().data_ptr()
        return any(
            other is not self and other.values.tensor.untyped_storage().data_ptr() == own
            for other in self.origins
            if not other.values.untouched
        )


class ParamBlob(Blob):
    """A parameter of a layer; its diff is the parameter's gradient, which passes add to.

    ``find`` gives the torch parameter or buffer, which a net may exchange for another net's;
    ``shape`` may differ from its own where layers share a parameter in two shapes.
    """

    def __init__(self, find: Callable[[], Tensor], shape: Shape) -> None:
        self._find = find
        self._shape = shape
        self._values: Array | None = None
        self._diffs: Array | None = None
        self._held: Callable[[], np.ndarray | None] | None = None
        self._loose: Tensor | None = None

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def owner(self) -> Tensor:
        """The torch parameter or buffer."""
        return self._find()

    @property
    def data(self) -> np.ndarray:
        tensor = self.owner.detach().view(self._shape)
        if self._values is None or self._values.tensor.data_ptr() != tensor.data_ptr():
            self._values = _fixed(tensor)
        return self._values.view()

    @property
    def diff(self) -> np.ndarray:
        gradient = self._gradient().view(self._shape)
        if self._diffs is None or self._diffs.tensor.data_ptr() != gradient.data_ptr():
            self._diffs = _fixed(gradient)
        view = self._diffs.view()
        self._held = weakref.ref(view)
        return view

    def reshape(self, *shape: int) -> None:
        if math.prod(shape) != self.count:
            raise RuntimeError(f"a parameter of shape {self._shape} cannot take shape {shape}")
        self._shape, self._values, self._diffs = tuple(map(int, shape)), None, None

    def _gradient(self) -> Tensor:
        """The gradient of the parameter; a statistic has one of its own, which nothing reads."""
        owner = self.owner
        if isinstance(owner, torch.nn.Parameter):
            if owner.grad is None or not owner.grad.is_contiguous():
                fresh = torch.zeros_like(owner, memory_format=torch.contiguous_format)
                owner.grad = fresh if owner.grad is None else fresh.copy_(owner.grad)
            return owner.grad
        if self._loose is None or self._loose.device != owner.device:
            self._loose = torch.zeros_like(owner)
        return self._loose

    def clear_diff(self) -> None:
        """Set the gradient to 0; an array of it that somebody holds stays the gradient."""
        if self._loose is not None:
            self._loose.zero_()
        owner = self.owner
        if isinstance(owner, torch.nn.Parameter) and owner.grad is not None:
            if self._held is not None and self._held() is not None:
                owner.grad.zero_()
                self.forget()
            else:
                owner.grad = None

    def push(self) -> None:
        """Bring what was written into host copies to the device."""
        for array in (self._values, self._diffs):
            if array is not None:
                array.push()

    def forget(self) -> None:
        """Drop host copies: the device's values have changed or will."""
        if self.owner.device.type != "cpu":
            self._values = self._diffs = None


def _fixed(tensor: Tensor) -> Array:
    array = Array(tuple(tensor.shape), tensor.device)
    array.fixed = True
    array.put(tensor)
    return array
