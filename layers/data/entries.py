"""The records of a database as samples: in stored order, or in another one by their keys."""

from __future__ import annotations

from array import array
from itertools import islice
from typing import Protocol

import numpy as np

from ...proto.errors import DataError
from . import image as images
from .database import Database
from .datum import Record, parse
from .labels import Label, LabelFile
from .lmdb_reader import LmdbDatabase
from .order import Order, Walk
from .pipeline import Job, Position
from .transform import Picture

#: Key and Datum of a record, as views of the database.
Entry = tuple[memoryview, memoryview]


class Reader:
    """Image and label of the entries of one database; labels from a file where there is one."""

    def __init__(self, database: Database, mode: int, labels: LabelFile | None = None) -> None:
        self.database = database
        self._mode = mode
        self.labels = labels

    def read(self, entry: Entry) -> tuple[Picture, Label]:
        """Image and label; DataError if the record is damaged or its label is missing."""
        picture, label = read_entry(entry[1], self._mode)
        return picture, label if self.labels is None else self.labels.get(entry[0])

    def label(self, entry: Entry) -> Label:
        """The label alone; the image is not looked at."""
        return label_of(parse(entry[1])) if self.labels is None else self.labels.get(entry[0])

    def describe(self, entry: Entry) -> str:
        """How errors name the record."""
        return describe(self.database, entry[0])


class Entries(Protocol):
    """A part of a sampler: which records come."""

    def take(self, count: int) -> Job[Entry]:
        """The next ``count`` records, wrapping to the next epoch at the end."""
        ...


class StoredEntries:
    """The records in the order of their keys, over and over."""

    def __init__(self, database: Database, position: Position, skipped: int = 0) -> None:
        self._database = database
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
        return Job(samples, epochs, indices, indices, self._position)


class OrderedEntries:
    """The records of an LMDB in the order of ``order``, over and over."""

    def __init__(self, keys: KeyIndex, order: Order, seed: int, position: Position) -> None:
        self._keys = keys
        self._order = order
        self._walk = Walk(order, seed, position.epoch, position.index)

    def take(self, count: int) -> Job[Entry]:
        places, epochs, numbers = self._walk.take(count)
        samples = [self._keys.entry(place) for place in places.tolist()]
        after = Position(self._walk.epoch, self._walk.index)
        return Job(samples, epochs, self._order.identities(places, numbers), places, after)


class KeyIndex:
    """The records of an LMDB by number. It takes the keys' bytes and four or eight for each."""

    def __init__(self, database: LmdbDatabase) -> None:
        self._database = database
        keys = bytearray()
        ends = array("Q", [0])
        for key in database.all_keys():
            keys += key
            ends.append(len(keys))
        self._keys = memoryview(keys).toreadonly()
        self._ends = np.array(ends, np.min_scalar_type(len(keys)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def entry(self, number: int) -> Entry:
        """Key and value of a record; DataError if it was deleted meanwhile."""
        key = self._keys[int(self._ends[number]) : int(self._ends[number + 1])]
        value = self._database.get(bytes(key))
        if value is None:
            raise DataError(f"{describe(self._database, key)} is gone")
        return key, value


def read_entry(value: memoryview | bytes, mode: int = images.NATIVE) -> tuple[Picture, Label]:
    """Image (decoded in ``mode``) and label of a Datum; DataError if it is damaged."""
    record = parse(value)
    if not record.encoded:
        return Picture(record.array()), label_of(record)
    return Picture(images.decode(record.data, mode), interleaved=True), label_of(record)


def label_of(record: Record) -> Label:
    """The label of a record, its several labels as an array."""
    return record.label if record.labels is None else record.labels


def describe(database: Database, key: memoryview | bytes) -> str:
    """How errors name a record."""
    return f"record {key_text(key)!r} of {database.path}"


def key_text(key: memoryview | bytes) -> str:
    """A key as text; bytes that are no UTF-8 are shown as escapes."""
    return bytes(key).decode(errors="backslashreplace")
