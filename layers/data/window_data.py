"""WindowData: windows of images, foreground and background, as R-CNN trains on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context, exactly
from ..registry import register
from ..source import DataSource
from . import image as images
from .buffers import uploaded
from .counter_random import Purpose, below, named_seed, words
from .lists import read_lines
from .prefetch import Prefetcher
from .shapes import positive
from .transform import Transform, read_mean

_PREFETCH = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A window of an image: corners inclusive, in pixels."""

    path: str
    label: int
    overlap: float
    x1: int
    y1: int
    x2: int
    y2: int

    def __str__(self) -> str:
        return f"{self.path} ({self.x1}, {self.y1}) to ({self.x2}, {self.y2})"


@dataclass(frozen=True, slots=True)
class Fields:
    """The settings of a WindowData layer; ``mean`` broadcasts against an image to warp."""

    crop_size: int
    scale: float
    mirror: bool
    context_pad: int
    square: bool
    mean: NDArray[np.float32] | None


@register("WindowData")
class WindowData(DataSource):
    """Windows drawn at random from a window file, warped to crop_size x crop_size.

    Tops: data (batch_size, channels, crop_size, crop_size) and label (batch_size,). A batch has its
    background windows first (overlap below ``bg_threshold``, label 0), then
    int(batch_size * fg_fraction) foreground ones (overlap from ``fg_threshold``). ``context_pad``
    pixels of context surround each window; ``crop_mode: "square"`` keeps its aspect. What lies
    outside the image is 0. As in Caffe the scale is that of window_data_param. Source: Girshick et
    al., "Rich feature hierarchies for accurate object detection", CVPR 2014.
    """

    message_field = "window_data_param"
    tops = exactly(2)
    unnumbered = "it draws windows at random, anew for every batch"

    def __init__(
        self,
        foreground: Sequence[Box],
        background: Sequence[Box],
        fields: Fields,
        *,
        batch_size: int,
        channels: int,
        fg_fraction: float = 0.25,
        cache_images: bool = False,
        name: str = "data",
    ) -> None:
        self._plan = _Plan(foreground, background, batch_size, int(batch_size * fg_fraction))
        self._fields = fields
        self._cached = cache_images
        self._name = name
        size = fields.crop_size
        self.shapes = ((batch_size, channels, size, size), (batch_size,))
        self._given_seed = 0
        self._batches = 0
        self._keys: tuple[str, ...] = ()
        self._running: Prefetcher[Any, _Batch] | None = None

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> WindowData:
        parameters = message.window_data_param
        transform = message.transform_param
        Transform.from_message(transform, context.phase)
        size = positive(transform.crop_size, "transform_param.crop_size")
        if 2 * parameters.context_pad >= size:
            raise LayerError(
                f"must be less than half of crop_size {size}, got {parameters.context_pad}",
                "window_data_param.context_pad",
            )
        boxes, channels = read_windows(parameters.source, parameters.root_folder)
        foreground = [box for box in boxes if box.overlap >= parameters.fg_threshold]
        background = [
            box
            for box in boxes
            if box.overlap < parameters.bg_threshold and box.overlap < parameters.fg_threshold
        ]
        for kind, found in (("foreground", foreground), ("background", background)):
            if not found:
                raise DataError(f"{parameters.source}: there are no {kind} windows in it")
        for box in foreground:
            if box.label < 1:
                raise DataError(
                    f"{parameters.source}: a foreground window of {box.path} has label "
                    f"{box.label} (must be at least 1)"
                )
        fields = Fields(
            size,
            parameters.scale,
            transform.mirror,
            parameters.context_pad,
            parameters.crop_mode == "square",
            _mean(transform, size, channels),
        )
        return cls(
            foreground,
            background,
            fields,
            batch_size=positive(parameters.batch_size, "window_data_param.batch_size"),
            channels=channels,
            fg_fraction=parameters.fg_fraction,
            cache_images=parameters.cache_images,
            name=message.name,
        )

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        if self._running is None:
            seed = named_seed(self._given_seed, self._name)
            counter = iter(range(self._batches, 2**62))
            # Files are kept as they are: decoded they would take ten times the memory.
            content = lru_cache(maxsize=None)(images.read_bytes)
            load = partial(
                _load,
                plan=self._plan,
                seed=seed,
                fields=self._fields,
                shape=self.shapes[0],
                content=content if self._cached else images.read_bytes,
            )
            self._running = Prefetcher(
                partial(next, counter), load, depth=_PREFETCH, name=f"layer {self._name!r}"
            )
        batch = self._running.next()
        self._batches += 1
        self._keys = batch.keys
        return uploaded(batch.data, device), uploaded(batch.labels, device)

    @property
    def last_keys(self) -> tuple[str, ...]:
        """Image and corners of each window."""
        return self._keys

    def seed(self, seed: int) -> None:
        self.close()
        self._given_seed = seed

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._given_seed, "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed(int(state["seed"]))
        self._batches = int(state["batches"])

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which windows a batch draws from: first background, then ``num_foreground`` others."""

    foreground: Sequence[Box]
    background: Sequence[Box]
    batch_size: int
    num_foreground: int

    def draw(self, seed: int, batch: int) -> Iterator[tuple[Box, int, bool]]:
        """Window, label and whether it is mirrored, of each sample of a batch."""
        places = np.arange(self.batch_size)
        picks = words(seed, Purpose.WINDOW, batch, places).tolist()
        flips = words(seed, Purpose.MIRROR, batch, places).tolist()
        for place, (pick, flip) in enumerate(zip(picks, flips, strict=True)):
            is_foreground = place >= self.batch_size - self.num_foreground
            boxes = self.foreground if is_foreground else self.background
            box = boxes[below(pick, len(boxes))]
            yield box, box.label if is_foreground else 0, flip >= 1 << 63


@dataclass(frozen=True, slots=True)
class _Batch:
    data: Tensor
    labels: Tensor
    keys: tuple[str, ...]


def _load(
    batch: int, *, plan: _Plan, seed: int, fields: Fields, shape: tuple[int, ...], content: Any
) -> _Batch:
    data = np.zeros(shape, np.float32)
    labels = np.zeros(len(data), np.float32)
    keys = []
    for place, (box, label, flip) in enumerate(plan.draw(seed, batch)):
        image = images.decode_file(content(box.path), box.path)
        if image.shape[2] != shape[1]:
            raise DataError(
                f"{box.path}: the image has {image.shape[2]} channels, "
                f"the window file says {shape[1]}"
            )
        warp(image, box, fields, fields.mirror and flip, data[place])
        labels[place] = label
        keys.append(str(box))
    return _Batch(torch.from_numpy(data), torch.from_numpy(labels), tuple(keys))


def warp(
    image: NDArray[np.uint8], box: Box, fields: Fields, mirror: bool, out: NDArray[np.float32]
) -> None:
    """Write the window, resized, centred and scaled, into the part of ``out`` that it covers."""
    (left, right), size_x, pad_x = _span(box.x1, box.x2, image.shape[1], fields, box, mirror)
    (top, bottom), size_y, pad_y = _span(box.y1, box.y2, image.shape[0], fields, box, False)
    if not (0 <= left <= right < image.shape[1] and 0 <= top <= bottom < image.shape[0]):
        raise DataError(
            f"{box.path}: the window ({box.x1}, {box.y1}) to ({box.x2}, {box.y2}) lies outside the "
            f"image of {image.shape[1]}x{image.shape[0]} (width x height)"
        )
    patch = cv2.resize(image[top : bottom + 1, left : right + 1], (size_x, size_y))
    if mirror:
        patch = cv2.flip(patch, 1)
    planes = patch.reshape(size_y, size_x, -1).transpose(2, 0, 1).astype(np.float32)
    rows, columns = slice(pad_y, pad_y + size_y), slice(pad_x, pad_x + size_x)
    if fields.mean is not None:
        planes -= fields.mean[:, rows, columns]
    out[:, rows, columns] = planes * np.float32(fields.scale)


def _span(
    low: int, high: int, limit: int, fields: Fields, box: Box, mirror: bool
) -> tuple[tuple[int, int], int, int]:
    """Along one axis: the pixels to take, the size they are resized to, and where that starts."""
    size = fields.crop_size
    if not (fields.context_pad or fields.square):
        return (low, high), size, 0
    half = np.float32(high - low + 1) / np.float32(2)
    reach = half
    if fields.square:
        reach = np.float32(max(box.x2 - box.x1 + 1, box.y2 - box.y1 + 1)) / np.float32(2)
    reach *= np.float32(size) / np.float32(size - 2 * fields.context_pad)
    middle = np.float32(low) + half
    low, high = _round(middle - reach), _round(middle + reach)
    scale = np.float32(size) / np.float32(high - low + 1)
    before, after = max(0, -low), max(0, high - limit + 1)
    low, high = low + before, high - after
    resized = _round(np.float32(high - low + 1) * scale)
    pad = _round(np.float32(after if mirror else before) * scale)
    return (low, high), min(resized, size - pad), pad


def _round(value: np.floating[Any]) -> int:
    """The nearest integer, halves away from zero as in C."""
    return int(np.copysign(np.floor(np.abs(value) + 0.5), value))


def _mean(
    transform: caffe_pb2.TransformationParameter, size: int, channels: int
) -> NDArray[np.float32] | None:
    """The centre of the mean image, or the mean values as an image."""
    if transform.mean_file:
        mean = read_mean(transform.mean_file)
        if mean.shape[0] != channels or min(mean.shape[1:]) < size:
            raise DataError(
                f"{transform.mean_file} is {'x'.join(map(str, mean.shape))}; it must have "
                f"{channels} channels and be at least crop_size {size} high and wide"
            )
        # As in Caffe the width settles both offsets.
        start = (mean.shape[2] - size) // 2
        return mean[:, start : start + size, start : start + size]
    if not transform.mean_value:
        return None
    if len(transform.mean_value) not in (1, channels):
        raise LayerError(
            f"must be one value, or one for each of {channels} channels, "
            f"got {len(transform.mean_value)}",
            "transform_param.mean_value",
        )
    values = np.array(transform.mean_value, np.float32).reshape(-1, 1, 1)
    return np.broadcast_to(values, (channels, size, size))


def read_windows(source: str | Path, root: str) -> tuple[list[Box], int]:
    """All windows of a window file, and the number of channels of its images.

    For each image the file has: ``# INDEX``, path, channels, height, width, the number of windows;
    then for each window: label, overlap, x1, y1, x2, y2. DataError names the line at fault.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(source), 1)]
    waiting = iter([(number, line) for number, line in lines if line])
    boxes: list[Box] = []
    channels = 0
    place = 0
    try:
        for place, head in waiting:
            if not head.startswith("#"):
                raise ValueError(f"must be '# INDEX', got {head!r}")
            place, path = next(waiting)
            sizes: list[int] = []
            while len(sizes) < 4:
                place, line = next(waiting)
                sizes += [int(word) for word in line.split()]
            channels = sizes[0]
            for _ in range(sizes[3]):
                place, line = next(waiting)
                label, overlap, *corners = line.split()
                x1, y1, x2, y2 = (int(corner) for corner in corners)
                boxes.append(Box(root + path, int(label), float(overlap), x1, y1, x2, y2))
    except StopIteration:
        raise DataError(f"{source}:{place}: the window file ends too early") from None
    except ValueError as error:
        raise DataError(f"{source}:{place}: {error}") from None
    if not boxes:
        raise DataError(f"{source}: the window file is empty")
    return boxes, channels
