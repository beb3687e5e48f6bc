"""From samples to batches: what the threads of an image source run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto.errors import DataError
from .buffers import BufferPool
from .labels import Label, Labels
from .transform import Draw, Picture, Transform, Window

logger = logging.getLogger(__name__)

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next sample stands: its epoch, its number within it, and the key before it."""

    epoch: int = 0
    index: int = 0
    after: bytes = b""


@dataclass(frozen=True, slots=True)
class Job(Generic[S]):
    """The samples of a batch and the position after them. Each sample has its epoch, an index that
    tells the draws of an epoch apart, and its place among the stored records."""

    samples: list[S]
    epochs: NDArray[np.int64]
    indices: NDArray[np.int64]
    places: NDArray[np.int64]
    after: Position


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch on its device, and the keys of its samples. ``event`` is set where a CUDA stream may
    still be working on it."""

    tops: tuple[Tensor, ...]
    after: Position
    event: torch.cuda.Event | None = None
    skipped: tuple[DataError, ...] = ()
    keys: tuple[str, ...] = ()


class Sampler(Protocol[S]):
    """Says which samples come, and reads one."""

    def take(self, count: int) -> Job[S]:
        """The next ``count`` samples, wrapping to the next epoch at the end."""
        ...

    def read(self, sample: S) -> tuple[Picture, Label]:
        """Image and label (None if it has none); DataError if the sample is bad."""
        ...

    def describe(self, sample: S) -> str:
        """How errors name the sample: its key and database, or its file and line."""
        ...

    def key(self, sample: S) -> str:
        """What the sample is called within its source."""
        ...


class Skips:
    """Counts the bad samples that were passed over, and refuses more than ``allowed``.

    They are counted as batches are handed out, so that the count does not depend on threads.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.count = 0

    def note(self, error: DataError) -> None:
        """Log one more; raises ``error`` if that is too many."""
        self.count += 1
        if self.count > self.allowed:
            raise error
        logger.warning("skipped %d of at most %d: %s", self.count, self.allowed, error)


class Pipeline(Generic[S]):
    """Plans and loads the batches of one run of a source.

    ``shape`` is that of one transformed image; with ``varies`` a batch (of one image) takes the
    shape of its image instead. ``as_bytes`` keeps images as bytes until they are on the device.
    ``labels`` None leaves the label top out.
    ``skip_bad`` lets bad samples be replaced by their neighbours; they are listed in the batch.
    """

    def __init__(
        self,
        sampler: Sampler[S],
        transform: Transform,
        *,
        batch_size: int,
        shape: tuple[int, int, int],
        seed: int,
        device: torch.device,
        pool: BufferPool,
        as_bytes: bool,
        varies: bool,
        labels: Labels | None,
        skip_bad: bool,
    ) -> None:
        self._sampler = sampler
        self._transform = transform
        self._batch_size = batch_size
        self._shape = shape
        self._seed = seed
        self._device = device
        self._pool = pool
        self._as_bytes = as_bytes
        self._varies = varies
        self._labels = labels
        self._skip_bad = skip_bad
        self._streams = threading.local()

    def plan(self) -> Job[S]:
        """The samples of the next batch."""
        return self._sampler.take(self._batch_size)

    def load(self, job: Job[S]) -> Ready:
        """Read, transform and upload a batch. A skipped sample repeats its neighbour."""
        batch = _HostBatch(len(job.samples), self._labels.shape if self._labels else ())
        draws = self._transform.draws(self._seed, job.epochs, job.indices)
        bad: dict[int, DataError] = {}
        for place, (sample, draw) in enumerate(zip(job.samples, draws, strict=True)):
            try:
                self._load_one(batch, place, sample, draw)
            except DataError as error:
                bad[place] = DataError(f"{self._sampler.describe(sample)}: {error}")
                if not self._skip_bad:
                    raise bad[place] from None
        batch.replace(list(bad))
        first = (int(job.epochs[0]), int(job.indices[0]))
        ready = self._upload(batch, job.after, first)
        keys = tuple(map(self._sampler.key, job.samples))
        return replace(ready, skipped=tuple(bad.values()), keys=keys)

    def _load_one(self, batch: _HostBatch, place: int, sample: S, draw: Draw) -> None:
        picture, label = self._sampler.read(sample)
        shape = picture.shape
        if shape != batch.picture_shape:
            top_shape = self._top_shape(shape)
            if batch.pixels is None:
                dtype = np.uint8 if self._as_bytes else np.float32
                batch.pixels = self._pool.take((self._batch_size, *top_shape), dtype)
            batch.picture_shape = shape
        assert batch.pixels is not None
        if self._labels is not None:
            batch.labels[place] = self._labels.check(label)
        picture, window = self._transform.place(picture, draw)
        batch.windows[place] = window
        if not self._as_bytes:
            self._transform.write(picture, window, batch.pixels[place])
        elif picture.pixels.dtype == np.uint8:
            self._transform.write_bytes(picture, window, batch.pixels[place])
        else:
            raise DataError("it has float_data, but the first record has bytes")

    def _top_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        top_shape = self._transform.top_shape(shape)
        if top_shape != self._shape and not (self._varies and top_shape[0] == self._shape[0]):
            made = "" if top_shape == shape else f", which makes {_text(top_shape)}"
            raise DataError(
                f"the image is {_text(shape)}{made}; every image must make {_text(self._shape)} "
                "like the first one (channels x height x width)"
            )
        return top_shape

    def _upload(self, batch: _HostBatch, after: Position, first: tuple[int, int]) -> Ready:
        assert batch.pixels is not None
        pixels, labels = torch.from_numpy(batch.pixels), torch.from_numpy(batch.labels)
        if self._device.type != "cuda":
            data = self._transform.finish(pixels, batch.windows) if self._as_bytes else pixels
            return Ready(self._tops(data.to(self._device), labels.to(self._device), first), after)
        with torch.cuda.stream(self._stream()):
            data = pixels.to(self._device, non_blocking=True)
            if self._as_bytes:
                data = self._transform.finish(data, batch.windows)
            tops = self._tops(data, labels.to(self._device), first)
            # Waiting for it leaves the core to other threads.
            event = torch.cuda.Event(blocking=True)
            event.record()
        # The host's buffer goes back to the pool when this returns: the copy must be over by then.
        event.synchronize()
        return Ready(tops, after, event)

    def _tops(self, data: Tensor, labels: Tensor, first: tuple[int, int]) -> tuple[Tensor, ...]:
        if self._labels is None:
            return (data,)
        mixing = self._transform.preparation.mixing
        return mixing(data, labels, self._seed, *first) if mixing else (data, labels)

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self._device)
        return self._streams.own


class _HostBatch:
    """A batch in the making; its memory is taken when its first image tells the shape."""

    def __init__(self, size: int, label_shape: tuple[int, ...]) -> None:
        self.pixels: NDArray | None = None
        self.picture_shape: tuple[int, int, int] | None = None
        self.labels = np.zeros((size, *label_shape), np.float32)
        self.windows = [Window(0, 0, False)] * size

    def replace(self, bad: Sequence[int]) -> None:
        """Fill each bad place with the nearest good one before it, else after it."""
        if not bad:
            return
        good = sorted(set(range(len(self.windows))) - set(bad))
        if not good or self.pixels is None:
            raise DataError(f"all {len(self.windows)} samples of a batch are bad")
        for place in bad:
            source = max((each for each in good if each < place), default=good[0])
            self.pixels[place] = self.pixels[source]
            self.labels[place] = self.labels[source]
            self.windows[place] = self.windows[source]


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
