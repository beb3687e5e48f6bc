"""What the sources that prepare images in the background have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import LayerError
from ..base import Shape, between
from ..source import DataSource
from .buffers import BufferPool
from .counter_random import named_seed
from .labels import Label, Labels
from .pipeline import Job, Pipeline, Position, Ready, Sampler, Skips
from .prefetch import Prefetcher, available_cores
from .preprocessing import described
from .transform import Picture, Transform

S = TypeVar("S")
_MIXING = "transform_param.augment"


class PrefetchedSource(DataSource, Generic[S]):
    """Images and labels, read and transformed by threads that start with the first batch.

    ``first`` and ``first_label`` are those of the first sample: they settle the tops' shapes.
    ``prefetch`` batches are prepared ahead. Set before the first batch: ``max_skipped`` (how many
    bad records may be passed over, each with a warning; 0 raises at the first) and ``threads``.
    """

    tops = between(1, 2)

    def __init__(
        self,
        first: Picture,
        transform: Transform,
        *,
        batch_size: int,
        num_tops: int,
        prefetch: int,
        name: str,
        first_label: Label = None,
    ) -> None:
        self._transform = transform
        self._image_shape = transform.top_shape(first.shape)
        # Decoded images are BGR whatever the records that are stored raw.
        self._channel_order = "BGR" if first.interleaved else transform.channel_order
        self._has_bytes = first.pixels.dtype == np.uint8
        # Images that are decoded and cropped may each have a size of their own.
        fixed = not (first.interleaved and transform.crop_size)
        self._image_size = first.shape[1:] if fixed else None
        self._batch_size = batch_size
        self._name = name
        self._prefetch = max(1, prefetch)
        self._wants_labels = num_tops > 1
        vector = first_label.shape if isinstance(first_label, np.ndarray) else ()
        classes = transform.preparation.num_classes
        one_hot = classes is not None and not vector
        label_shape: Shape = (classes,) if classes is not None and not vector else vector
        if transform.preparation.mixing is not None and not self._wants_labels:
            raise LayerError("needs a second top for labels, which are mixed too", _MIXING)
        data: Shape = (batch_size, *self._image_shape)
        labels: Shape = (batch_size, *label_shape)
        self.shapes = (data, labels) if self._wants_labels else (data,)
        self._labels = Labels(shape=label_shape, one_hot=one_hot)
        self.max_skipped = 0
        self.threads: int | None = None
        self._seed = 0
        self._position: Position | None = None
        self._keys: tuple[str, ...] = ()
        self._skips = Skips(0)
        self._running: Prefetcher[Job[S], Ready] | None = None
        self._device: torch.device | None = None

    @abstractmethod
    def _sampler(self, position: Position | None, seed: int) -> Sampler[S]:
        """Samples from ``position`` on; None is the beginning."""

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        if self._running is None or device != self._device:
            self._start(device)
        assert self._running is not None
        try:
            batch = self._running.next()
            for error in batch.skipped:
                self._skips.note(error)
        except BaseException:
            self.close()
            raise
        self._position, self._keys = batch.after, batch.keys
        if batch.event is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(batch.event)
            for top in batch.tops:
                top.record_stream(stream)
        return batch.tops

    @property
    def last_keys(self) -> tuple[str, ...]:
        return self._keys

    def _start(self, device: torch.device) -> None:
        self.close()
        threads = min(self.threads or available_cores(), self._prefetch)
        on_cuda = device.type == "cuda"
        seed = named_seed(self._seed, self._name)
        pipeline = Pipeline(
            self._sampler(self._position, seed),
            self._transform,
            batch_size=self._batch_size,
            shape=self._image_shape,
            seed=seed,
            device=device,
            pool=BufferPool(spare=self._prefetch + threads + 2, pinned=on_cuda),
            # A quarter of the bytes to copy; the device then has the arithmetic for free.
            as_bytes=on_cuda and self._has_bytes,
            varies=self._batch_size == 1,
            labels=self._labels if self._wants_labels else None,
            skip_bad=self.max_skipped > 0,
        )
        self._skips.allowed = self.max_skipped
        self._device = device
        self._running = Prefetcher(
            pipeline.plan,
            pipeline.load,
            depth=self._prefetch,
            threads=threads,
            name=f"layer {self._name!r}",
        )

    def expect_labels(self, top: int, classes: int, ignored: frozenset[int]) -> None:
        if top == 1:
            self._labels = replace(self._labels, num_classes=classes, ignored=ignored)

    def preprocessing(self, blob: str) -> caffe_pb2.Preprocessing | None:
        if not self._has_bytes:
            return None
        layer = caffe_pb2.LayerParameter(top=[blob])
        message = described(layer, self._transform, self._image_shape, self._channel_order)
        if self._image_size is not None and not (message.resize_side or message.resize_height):
            message.image_height, message.image_width = self._image_size
        return message

    def seed(self, seed: int) -> None:
        self.close()
        self._seed = seed

    def state_dict(self) -> dict[str, Any]:
        position = self._position
        if position is None:
            return {"seed": self._seed}
        return {
            "seed": self._seed,
            "epoch": position.epoch,
            "index": position.index,
            "after": position.after.decode("latin-1"),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        self._seed = int(state["seed"])
        self._position = None
        if "epoch" in state:
            self._position = Position(
                int(state["epoch"]), int(state["index"]), str(state["after"]).encode("latin-1")
            )

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None
