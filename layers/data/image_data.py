"""ImageData: images and labels from files that a list names."""

from __future__ import annotations

import hashlib

import cv2

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context, exactly
from ..registry import register
from . import image as images
from .counter_random import Purpose, below, word
from .lists import ListedImage, read_image_list
from .order import Order, Walk, by_label
from .pipeline import Job, Position
from .prefetched import PrefetchedSource
from .shapes import positive
from .stamps import stamp
from .transform import Picture, Transform

#: Caffe's ImageData has no field for it; its Data layer's default is used here.
_PREFETCH = 4


@register("ImageData")
class ImageData(PrefetchedSource[ListedImage]):
    """Batches of the images of a list file, "PATH LABEL" a line, in its order.

    Tops: data (batch_size, channels, height, width), transformed, channels BGR or one if
    ``is_color`` is off; label (batch_size,). ``new_height`` and ``new_width`` resize each image
    first. With ``shuffle`` each epoch has an order of its own; with ``balanced`` all labels come
    equally often. Without resizing or cropping a batch
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
        balanced: bool = False,
        rand_skip: int = 0,
        num_tops: int = 2,
        name: str = "data",
    ) -> None:
        self._reader = reader
        groups = by_label([each.label for each in reader.listed]) if balanced else None
        self._order = Order(len(reader.listed), shuffle, groups)
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
        source = cls(
            reader,
            Transform.from_message(message.transform_param, context.phase),
            batch_size=batch_size,
            shuffle=parameters.shuffle,
            balanced=parameters.balanced,
            rand_skip=parameters.rand_skip,
            num_tops=context.num_tops,
            name=message.name,
        )
        source.max_skipped = parameters.max_skipped
        source.threads = parameters.threads or None
        return source

    @property
    def records(self) -> int | None:
        return len(self._reader.listed)

    def preprocessing(self, blob: str) -> caffe_pb2.Preprocessing | None:
        message = super().preprocessing(blob)
        if message is not None and self._reader.size and not message.resize_side:
            width, height = self._reader.size
            if not message.resize_height:
                message.resize_height, message.resize_width = height, width
                message.ClearField("image_height")
                message.ClearField("image_width")
        return message

    def _sampler(self, position: Position | None, seed: int) -> _Listed:
        if position is None:
            skipped = below(word(seed, Purpose.SKIP), self._rand_skip) if self._rand_skip else 0
            position = Position(0, skipped)
        return _Listed(self._reader, self._order, position, seed)

    def _stored(self, epoch: int) -> _Listed:
        return _Listed(self._reader, Order(len(self._reader.listed)), Position(epoch), 0)

    def _origin(self) -> str:
        return self._reader.fingerprint()


class ImageReader:
    """The images of a list file: decoded in ``mode``, resized to ``size`` (width, height)."""

    def __init__(self, source: str, root: str, mode: int, size: tuple[int, int] | None) -> None:
        self.listed = read_image_list(source)
        self._source = source
        self._root = root
        self._mode = mode
        self.size = size

    def read(self, listed: ListedImage) -> Picture:
        """The image; DataError if it cannot be read."""
        image = images.read(self._root + listed.path, self._mode)
        if self.size is not None:
            # cv2 drops an axis of one channel, hence the reshape.
            image = cv2.resize(image, self.size).reshape(self.size[1], self.size[0], -1)
        return Picture(image, interleaved=True)

    def fingerprint(self) -> str:
        """A text that changes when a file, its label or how it is read may have changed."""
        digest = hashlib.sha256(repr((self._mode, self.size)).encode())
        for listed in self.listed:
            text = f"{stamp(self._root + listed.path)} {listed.label}\n"
            digest.update(text.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def describe(self, listed: ListedImage) -> str:
        """How errors name the image's place in the list."""
        return f"{self._source}:{listed.line}"


class _Listed:
    """The images of a list in an order, over and over."""

    def __init__(self, reader: ImageReader, order: Order, position: Position, seed: int) -> None:
        self._reader = reader
        self._order = order
        self._walk = Walk(order, seed, position.epoch, position.index)

    def take(self, count: int) -> Job[ListedImage]:
        places, epochs, numbers = self._walk.take(count)
        after = Position(self._walk.epoch, self._walk.index)
        samples = [self._reader.listed[place] for place in places]
        return Job(samples, epochs, self._order.identities(places, numbers), places, after)

    def read(self, sample: ListedImage) -> tuple[Picture, int | None]:
        return self._reader.read(sample), sample.label

    def describe(self, sample: ListedImage) -> str:
        return self._reader.describe(sample)

    def key(self, sample: ListedImage) -> str:
        return sample.path
