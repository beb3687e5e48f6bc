"""Data: images and labels from a database of Datum records."""

from __future__ import annotations

from itertools import islice

import numpy as np

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context
from ..registry import register
from . import image as images
from .counter_random import Purpose, below, word
from .database import Database, open_database
from .datum import Record, parse
from .pipeline import Job, Position
from .prefetched import PrefetchedSource
from .shapes import positive
from .transform import Picture, Transform

#: Key and Datum of a record, as views of the database.
Entry = tuple[memoryview, memoryview]


@register("Data")
class Data(PrefetchedSource[Entry]):
    """Batches from an LMDB or LevelDB, in the order of its keys, as Caffe's DataLayer gives them.

    Tops: data (batch_size, channels, height, width), the transformed images, channels BGR; label
    (batch_size,), if there is a second top. Both are float32. At the end the records start again,
    also in the middle of a batch. ``rand_skip`` leaves out fewer than that many records at the
    start.
    """

    message_field = "data_param"

    def __init__(
        self,
        database: Database,
        transform: Transform,
        *,
        batch_size: int,
        num_tops: int = 2,
        prefetch: int = 4,
        rand_skip: int = 0,
        name: str = "data",
    ) -> None:
        self._database = database
        self._rand_skip = rand_skip
        key, value = next(iter(database.records()))
        try:
            first, _ = read_entry(value, transform)
            super().__init__(
                first,
                transform,
                batch_size=batch_size,
                num_tops=num_tops,
                prefetch=prefetch,
                name=name,
            )
        except DataError as error:
            raise DataError(f"{describe(database, key)}: {error}") from None

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Data:
        parameters = message.data_param
        if not parameters.source:
            raise LayerError("must name a database, got nothing", "data_param.source")
        batch_size = positive(parameters.batch_size, "data_param.batch_size")
        transform = Transform.from_message(message.transform_param, context.phase)
        return cls(
            open_database(parameters.source, parameters.backend, message.name),
            transform,
            batch_size=batch_size,
            num_tops=context.num_tops,
            prefetch=parameters.prefetch,
            rand_skip=parameters.rand_skip,
            name=message.name,
        )

    @property
    def records(self) -> int | None:
        return len(self._database)

    def _sampler(self, position: Position | None, seed: int) -> _Entries:
        if position is not None:
            return _Entries(self._database, self._transform, position, 0)
        skipped = below(word(seed, Purpose.SKIP), self._rand_skip) if self._rand_skip else 0
        return _Entries(self._database, self._transform, Position(), skipped)


class _Entries:
    """The records of a database, over and over."""

    def __init__(
        self, database: Database, transform: Transform, position: Position, skipped: int
    ) -> None:
        self._database = database
        self._transform = transform
        self._position = position
        self._records = database.records(position.after)
        if position.after:
            # The records start at the key that was delivered last, if it is still there.
            self._records = (entry for entry in self._records if bytes(entry[0]) != position.after)
        if skipped:
            self.take(skipped)

    def take(self, count: int) -> Job[Entry]:
        samples: list[Entry] = []
        epochs, indices = np.empty(count, np.int64), np.empty(count, np.int64)
        epoch, index = self._position.epoch, self._position.index
        while len(samples) < count:
            found = list(islice(self._records, count - len(samples)))
            places = slice(len(samples), len(samples) + len(found))
            epochs[places] = epoch
            indices[places] = np.arange(index, index + len(found))
            index += len(found)
            samples += found
            if len(samples) < count:
                if index == 0:
                    raise DataError(f"{self._database.path}: the database is empty")
                epoch, index = epoch + 1, 0
                self._records = self._database.records()
        self._position = Position(epoch, index, bytes(samples[-1][0]))
        return Job(samples, epochs, indices, self._position)

    def read(self, sample: Entry) -> tuple[Picture, int | None]:
        return read_entry(sample[1], self._transform)

    def describe(self, sample: Entry) -> str:
        return describe(self._database, sample[0])


def read_entry(value: memoryview | bytes, transform: Transform) -> tuple[Picture, int | None]:
    """Image and label of a Datum; DataError if it is damaged."""
    record: Record = parse(value)
    if not record.encoded:
        return Picture(record.array()), record.label
    return Picture(images.decode(record.data, transform.mode), interleaved=True), record.label


def describe(database: Database, key: memoryview | bytes) -> str:
    """How errors name a record."""
    return f"record {bytes(key).decode(errors='backslashreplace')!r} of {database.path}"
