"""ImageData: images and labels from files that a list names."""

from __future__ import annotations

import cv2
import numpy as np

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context, exactly
from ..registry import register
from . import image as images
from .counter_random import Purpose, below, permutation, word
from .lists import ListedImage, read_image_list
from .pipeline import Job, Position
from .prefetched import PrefetchedSource
from .shapes import positive
from .transform import Picture, Transform

#: Caffe's ImageData has no field for it; its Data layer's default is used here.
_PREFETCH = 4


@register("ImageData")
class ImageData(PrefetchedSource[ListedImage]):
    """Batches of the images of a list file, "PATH LABEL" a line, in its order.

    Tops: data (batch_size, channels, height, width), transformed, channels BGR or one if
    ``is_color`` is off; label (batch_size,). ``new_height`` and ``new_width`` resize each image
    first. With ``shuffle`` each epoch has an order of its own. Without resizing or cropping a batch
    of one image takes the shape of its image.
    """

    message_field = "image_data_param"
    tops = exactly(2)

    def __init__(
        self,
        reader: ImageReader,
        transform: Transform,
        *,
        batch_size: int,
        shuffle: bool = False,
        rand_skip: int = 0,
        num_tops: int = 2,
        name: str = "data",
    ) -> None:
        self._reader = reader
        self._shuffle = shuffle
        self._rand_skip = rand_skip
        first = reader.listed[0]
        try:
            picture = reader.read(first)
            super().__init__(
                picture,
                transform,
                batch_size=batch_size,
                num_tops=num_tops,
                prefetch=_PREFETCH,
                name=name,
            )
        except DataError as error:
            raise DataError(f"{reader.describe(first)}: {error}") from None

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> ImageData:
        parameters = message.image_data_param
        height, width = parameters.new_height, parameters.new_width
        if bool(height) != bool(width):
            raise LayerError(
                f"new_height and new_width must be given together, got {height} and {width}",
                "image_data_param.new_width" if height else "image_data_param.new_height",
            )
        if not parameters.source:
            raise LayerError("must name a list of images, got none", "image_data_param.source")
        batch_size = positive(parameters.batch_size, "image_data_param.batch_size")
        reader = ImageReader(
            parameters.source,
            parameters.root_folder,
            images.COLOR if parameters.is_color else images.GRAY,
            (width, height) if width else None,
        )
        if parameters.rand_skip > len(reader.listed):
            raise LayerError(
                f"must be at most the {len(reader.listed)} images of the list, "
                f"got {parameters.rand_skip}",
                "image_data_param.rand_skip",
            )
        return cls(
            reader,
            Transform.from_message(message.transform_param, context.phase),
            batch_size=batch_size,
            shuffle=parameters.shuffle,
            rand_skip=parameters.rand_skip,
            num_tops=context.num_tops,
            name=message.name,
        )

    def _sampler(self, position: Position | None, seed: int) -> _Listed:
        if position is None:
            skipped = below(word(seed, Purpose.SKIP), self._rand_skip) if self._rand_skip else 0
            position = Position(0, skipped)
        return _Listed(self._reader, position, seed if self._shuffle else None)


class ImageReader:
    """The images of a list file: decoded in ``mode``, resized to ``size`` (width, height)."""

    def __init__(self, source: str, root: str, mode: int, size: tuple[int, int] | None) -> None:
        self.listed = read_image_list(source)
        self._source = source
        self._root = root
        self._mode = mode
        self._size = size

    def read(self, listed: ListedImage) -> Picture:
        """The image; DataError if it cannot be read."""
        image = images.read(self._root + listed.path, self._mode)
        if self._size is not None:
            # cv2 drops an axis of one channel, hence the reshape.
            image = cv2.resize(image, self._size).reshape(self._size[1], self._size[0], -1)
        return Picture(image, interleaved=True)

    def describe(self, listed: ListedImage) -> str:
        """How errors name the image's place in the list."""
        return f"{self._source}:{listed.line}"


class _Listed:
    """The images of a list, over and over; shuffled in each epoch if there is a seed for it."""

    def __init__(self, reader: ImageReader, position: Position, seed: int | None) -> None:
        self._reader = reader
        self._position = position
        self._seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def take(self, count: int) -> Job[ListedImage]:
        listed = self._reader.listed
        epoch, index = self._position.epoch, self._position.index
        epochs, indices = np.empty(count, np.int64), np.empty(count, np.int64)
        taken = 0
        while taken < count:
            part = self._order_of(epoch)[index : index + count - taken]
            epochs[taken : taken + len(part)] = epoch
            indices[taken : taken + len(part)] = part
            taken += len(part)
            index += len(part)
            if index == len(listed):
                epoch, index = epoch + 1, 0
        self._position = Position(epoch, index)
        return Job([listed[place] for place in indices], epochs, indices, self._position)

    def _order_of(self, epoch: int) -> np.ndarray:
        """The places of the list in the order of an epoch."""
        if self._order[0] != epoch:
            count = len(self._reader.listed)
            places = np.arange(count)
            if self._seed is not None:
                places = permutation(count, self._seed, Purpose.SHUFFLE, epoch)
            self._order = (epoch, places)
        return self._order[1]

    def read(self, sample: ListedImage) -> tuple[Picture, int | None]:
        return self._reader.read(sample), sample.label

    def describe(self, sample: ListedImage) -> str:
        return self._reader.describe(sample)
