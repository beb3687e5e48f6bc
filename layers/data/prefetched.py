"""What the sources that prepare images in the background have in common."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Shape, between
from ..source import NumberedSource, Variation
from .buffers import BufferPool
from .counter_random import named_seed
from .labels import Label, Labels
from .pipeline import Job, Pipeline, Position, Ready, Sampler, Skips
from .prefetch import Prefetcher, available_cores
from .preprocessing import described
from .transform import Picture, Transform

S = TypeVar("S")
_MIXING = "transform_param.augment"


class PrefetchedSource(NumberedSource, Generic[S]):
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
        self._first_shape = first.shape
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
        #: Says which records come where nothing is read.
        self._planner: Sampler[S] | None = None
        self._device: torch.device | None = None

    @abstractmethod
    def _sampler(self, position: Position | None, seed: int) -> Sampler[S]:
        """Samples from ``position`` on; None is the beginning."""

    @abstractmethod
    def _stored(self, epoch: int) -> Sampler[S]:
        """All samples in stored order, as those of ``epoch``."""

    @abstractmethod
    def _origin(self) -> str:
        """A text that changes when the stored records may have changed."""

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
        return _received(batch, device)

    @property
    def last_keys(self) -> tuple[str, ...]:
        return self._keys

    def _start(self, device: torch.device) -> None:
        self.close()
        seed = named_seed(self._seed, self._name)
        self._skips.allowed = self.max_skipped
        self._device = device
        self._running = self._prefetcher(
            self._sampler(self._position, seed), device, skip_bad=self.max_skipped > 0
        )

    def _prefetcher(
        self, sampler: Sampler[S], device: torch.device, skip_bad: bool
    ) -> Prefetcher[Job[S], Ready]:
        threads = min(self.threads or available_cores(), self._prefetch)
        on_cuda = device.type == "cuda"
        pipeline = Pipeline(
            sampler,
            self._transform,
            batch_size=self._batch_size,
            shape=self._image_shape,
            seed=named_seed(self._seed, self._name),
            device=device,
            pool=BufferPool(spare=self._prefetch + threads + 2, pinned=on_cuda),
            # A quarter of the bytes to copy; the device then has the arithmetic for free.
            as_bytes=on_cuda and self._has_bytes,
            varies=self._batch_size == 1,
            labels=self._labels if self._wants_labels else None,
            skip_bad=skip_bad,
        )
        return Prefetcher(
            pipeline.plan,
            pipeline.load,
            depth=self._prefetch,
            threads=threads,
            name=f"layer {self._name!r}",
        )

    def variation(self) -> Variation | None:
        return self._transform.variation(self._first_shape)

    def advance(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._planner is None:
            self.close()
            self._planner = self._sampler(self._position, named_seed(self._seed, self._name))
        job = self._planner.take(self._batch_size)
        self._position = job.after
        self._keys = tuple(map(self._planner.key, job.samples))
        return job.epochs, job.places

    def sweep(self, device: torch.device, epoch: int = 0) -> Iterator[tuple[Tensor, ...]]:
        sampler = self._stored(epoch)
        if self.variation() is None and self._transform.crops_anywhere:
            sampler = _OneSize(sampler, self._first_shape)
        prefetcher = self._prefetcher(sampler, device, skip_bad=False)
        try:
            for _ in range(math.ceil((self.records or 0) / self._batch_size)):
                yield _received(prefetcher.next(), device)
        finally:
            prefetcher.close()

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self._transform.description().SerializeToString())
        labels = (replace(self._labels, ignored=frozenset()), sorted(self._labels.ignored))
        digest.update(repr((self._origin(), self._transform.mode, labels)).encode())
        return digest.hexdigest()

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
        self._planner = None
        if self._running is not None:
            self._running.close()
            self._running = None


def _received(batch: Ready, device: torch.device) -> tuple[Tensor, ...]:
    """The tops of a batch, for use in the current stream."""
    if batch.event is not None:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(batch.event)
        for top in batch.tops:
            top.record_stream(stream)
    return batch.tops


class _OneSize(Generic[S]):
    """A sampler whose images must all be as large as the first one."""

    def __init__(self, sampler: Sampler[S], shape: tuple[int, int, int]) -> None:
        self.take, self.describe, self.key = sampler.take, sampler.describe, sampler.key
        self._read = sampler.read
        self._shape = shape

    def read(self, sample: S) -> tuple[Picture, Label]:
        picture, label = self._read(sample)
        if picture.shape != self._shape:
            raise DataError(
                f"the image is {picture.shape}, the first one {self._shape} (channels, height, "
                "width): crop_size takes a random part of larger ones, which cannot be kept"
            )
        return picture, label
