"""Data: images and labels from a database of Datum records."""

from __future__ import annotations

import numpy as np

from ...proto import caffe_pb2
from ...proto.errors import DataError, LayerError
from ..base import Context
from ..registry import register
from .counter_random import Purpose, below, word
from .database import Database, open_database
from .entries import (
    Entries,
    Entry,
    KeyIndex,
    OrderedEntries,
    Reader,
    StoredEntries,
    describe,
    key_text,
)
from .labels import Label, LabelFile
from .lmdb_reader import LmdbDatabase
from .order import Order, by_label
from .pipeline import Position
from .prefetched import PrefetchedSource
from .shapes import positive
from .stamps import stamp
from .transform import Picture, Transform


@register("Data")
class Data(PrefetchedSource[Entry]):
    """Batches from an LMDB or LevelDB, in the order of its keys, as Caffe's DataLayer gives them.

    Tops: data (batch_size, channels, height, width), the transformed images, channels BGR; label
    (batch_size,), if there is a second top, or (batch_size, values) where records, or the file
    ``labels``, have several labels. Both are float32. At the end the records start again, also in
    the middle of a batch. ``rand_skip`` leaves out fewer than that many records at the start.

    Beyond Caffe and only for an LMDB: with ``shuffle`` each epoch has an order of its own; with
    ``balanced`` records are drawn so that all labels come equally often.
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
        shuffle: bool = False,
        balanced: bool = False,
        labels: LabelFile | None = None,
        name: str = "data",
    ) -> None:
        self._database = database
        self._rand_skip = rand_skip
        self._reader = Reader(database, transform.mode, labels)
        first = next(iter(database.records()))
        try:
            picture, label = self._reader.read(first)
            super().__init__(
                picture,
                transform,
                batch_size=batch_size,
                num_tops=num_tops,
                prefetch=prefetch,
                name=name,
                first_label=label,
            )
        except DataError as error:
            raise DataError(f"{self._reader.describe(first)}: {error}") from None
        self._shuffle = shuffle
        self._balanced = balanced
        self._ordered: tuple[KeyIndex, Order] | None = None

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Data:
        parameters = message.data_param
        if not parameters.source:
            raise LayerError("must name a database, got nothing", "data_param.source")
        batch_size = positive(parameters.batch_size, "data_param.batch_size")
        transform = Transform.from_message(message.transform_param, context.phase)
        database = open_database(parameters.source, parameters.backend, message.name)
        for field in ("shuffle", "balanced"):
            if getattr(parameters, field) and not isinstance(database, LmdbDatabase):
                raise LayerError("needs an LMDB, source is a LevelDB", f"data_param.{field}")
        source = cls(
            database,
            transform,
            batch_size=batch_size,
            num_tops=context.num_tops,
            prefetch=parameters.prefetch,
            rand_skip=parameters.rand_skip,
            shuffle=parameters.shuffle,
            balanced=parameters.balanced,
            labels=LabelFile(parameters.label_file) if parameters.label_file else None,
            name=message.name,
        )
        source.max_skipped = parameters.max_skipped
        source.threads = parameters.threads or None
        return source

    @property
    def records(self) -> int | None:
        return len(self._database)

    def _sampler(self, position: Position | None, seed: int) -> _Samples:
        skipped = below(word(seed, Purpose.SKIP), self._rand_skip) if self._rand_skip else 0
        entries: Entries
        if self._shuffle or self._balanced:
            if self._ordered is None:
                self._ordered = self._read_order()
            start = position or Position(index=skipped % len(self._ordered[0]))
            entries = OrderedEntries(*self._ordered, seed, start)
        elif position is not None:
            entries = StoredEntries(self._database, position)
        else:
            entries = StoredEntries(self._database, Position(), skipped)
        return _Samples(entries, self._reader)

    def _stored(self, epoch: int) -> _Samples:
        return _Samples(StoredEntries(self._database, Position(epoch)), self._reader)

    def _origin(self) -> str:
        labels = self._reader.labels
        return self._database.fingerprint() + (stamp(labels.path) if labels else "")

    def _read_order(self) -> tuple[KeyIndex, Order]:
        """The keys, and for balanced draws the labels of all records: one pass without images."""
        assert isinstance(self._database, LmdbDatabase)
        keys = KeyIndex(self._database)
        groups = None
        if self._balanced:
            labels = []
            for entry in self._database.records():
                label = self._reader.label(entry)
                if label is None or isinstance(label, np.ndarray):
                    what = "no label" if label is None else f"{label.size} labels"
                    place = describe(self._database, entry[0])
                    raise DataError(f"{place}: it has {what}; balanced needs one for each record")
                labels.append(label)
            groups = by_label(labels)
        return keys, Order(len(keys), self._shuffle, groups)


class _Samples:
    """Says which records come, and reads them."""

    def __init__(self, entries: Entries, reader: Reader) -> None:
        self.take = entries.take
        self._reader = reader

    def read(self, sample: Entry) -> tuple[Picture, Label]:
        return self._reader.read(sample)

    def describe(self, sample: Entry) -> str:
        return self._reader.describe(sample)

    def key(self, sample: Entry) -> str:
        return key_text(sample[0])
