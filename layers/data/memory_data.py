"""MemoryData: batches from arrays that the program gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError
from ..base import Context, exactly
from ..registry import register
from ..source import DataSource
from .buffers import uploaded
from .shapes import checked, positive

_SIZES = ("batch_size", "channels", "height", "width")


@register("MemoryData")
class MemoryData(DataSource):
    """Batches from the arrays given to :meth:`set_data`, in order, over and over.

    Tops: data (batch_size, channels, height, width) and label (batch_size,), float32. The arrays
    are delivered as they are: as in Caffe, transform_param does not apply to them.
    """

    message_field = "memory_data_param"
    tops = exactly(2)

    def __init__(self, batch_size: int, channels: int, height: int, width: int) -> None:
        self._batch_size = batch_size
        self.shapes = (checked((batch_size, channels, height, width), "memory_data_param"),)
        self.shapes += ((batch_size,),)
        self._data: Tensor | None = None
        self._labels = torch.empty(0)
        self._start = 0
        self._keys: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> MemoryData:
        sizes = {name: getattr(message.memory_data_param, name) for name in _SIZES}
        for name, size in sizes.items():
            positive(size, f"memory_data_param.{name}")
        return cls(**sizes)

    def set_data(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Give the images (count, channels, height, width) and their labels (count, ...).

        The count must be a multiple of the batch size; delivery starts at the first image. The
        arrays are copied. Raises DataError if the shapes do not fit.
        """
        values = torch.tensor(np.asarray(data, np.float32))
        numbers = torch.tensor(np.asarray(labels, np.float32)).reshape(-1)
        if values.ndim != 4 or values.shape[1:] != self.shapes[0][1:]:
            raise DataError(
                f"the data must be (count, *{list(self.shapes[0][1:])}), got {list(values.shape)}"
            )
        if not len(values) or len(values) % self._batch_size:
            raise DataError(
                f"the number of images must be a multiple of the batch size {self._batch_size}, "
                f"got {len(values)}"
            )
        if len(numbers) != len(values):
            raise DataError(f"{len(values)} images need as many labels, got {len(numbers)}")
        self._data, self._labels, self._start = values, numbers, 0

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        if self._data is None:
            raise DataError("a MemoryData layer has no data: give it arrays with set_data first")
        part = slice(self._start, self._start + self._batch_size)
        self._start = part.stop % len(self._data)
        self._keys = tuple(map(str, range(part.start, part.stop)))
        # Clones, because what is done to a batch in place must not change the data.
        return tuple(uploaded(each[part].clone(), device) for each in (self._data, self._labels))

    @property
    def last_keys(self) -> tuple[str, ...]:
        """The place of each record in the arrays, counted from 0."""
        return self._keys

    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start = int(state["start"])
