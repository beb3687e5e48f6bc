"""Labelled images to evaluate a model on: a database, a folder for each class, or a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...layers.data import image as images
from ...layers.data.conversion import list_folders
from ...layers.data.database import Database, open_any
from ...layers.data.entries import Entry, key_text, read_entry
from ...layers.data.labels import Label
from ...layers.data.lists import ListedImage, read_image_list
from ...layers.data.lmdb_reader import is_lmdb
from ...layers.data.preprocessing import BGR, Preprocessing, Views
from ...layers.data.transform import Picture
from ...proto.errors import DataError


class Samples(Protocol):
    """Images with labels, in an order, each with a key.

    ``classes`` names the labels, if known; ``stored`` says whether they lie in a database, as a
    data layer reads them.
    """

    classes: Sequence[str]
    stored: bool

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]:
        """What is needed to read each of them."""
        ...

    def key(self, sample: Any) -> str:
        """How the sample is called."""
        ...

    def read(self, sample: Any, mode: int) -> tuple[Picture, Label]:
        """Image, decoded in ``mode`` if it is encoded, and label; DataError if it is bad."""
        ...


class Records:
    """The records of a database, in the order of their keys."""

    stored = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self.classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self._database)

    def __iter__(self) -> Iterator[Entry]:
        return self._database.records()

    def key(self, sample: Entry) -> str:
        return key_text(sample[0])

    def read(self, sample: Entry, mode: int) -> tuple[Picture, Label]:
        return read_entry(sample[1], mode)


class Files:
    """Image files, below ``root``, in the order of a list."""

    stored = False

    def __init__(self, root: str, listed: Sequence[ListedImage], classes: Sequence[str]) -> None:
        self._root = root
        self._listed = listed
        self.classes = classes

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[ListedImage]:
        return iter(self._listed)

    def key(self, sample: ListedImage) -> str:
        return sample.path

    def read(self, sample: ListedImage, mode: int) -> tuple[Picture, Label]:
        # As ImageData reads files: with the colours that are asked for, and turned as they say.
        color = images.COLOR if mode == images.NATIVE else mode
        return Picture(images.read(self._root + sample.path, color), True), sample.label


def open_samples(path: str, root: str = "") -> Samples:
    """The samples at ``path``: an LMDB or LevelDB, a folder with a folder for each class, or a list
    as of an ImageData layer, to whose paths ``root`` is put in front. DataError for anything else.
    """
    place = Path(path)
    if place.is_file() and not is_lmdb(place):
        return Files(root, read_image_list(place), ())
    if not place.exists():
        raise DataError(f"{path}: there is no such database, folder or list")
    if is_lmdb(place) or (place / "CURRENT").is_file():
        return Records(open_any(place))
    listed, classes = list_folders(place)
    return Files(f"{path.rstrip('/')}/", listed, classes)


def first_picture(samples: Samples) -> Picture:
    """The first image that can be read; DataError if none can."""
    reason = "it is empty"
    for sample in samples:
        try:
            return samples.read(sample, images.NATIVE)[0]
        except DataError as error:
            reason = f"{samples.key(sample)}: {error}"
    raise DataError(f"none of its images can be used: {reason}")


@dataclass(slots=True)
class Prepared:
    """Samples ready for the net: ``inputs`` (samples, views, channels, height, width) and labels;
    ``bad`` has key and reason of those that are not."""

    keys: list[str]
    labels: list[int]
    inputs: Tensor | None
    bad: list[tuple[str, str]]
    count: int


class Preparer:
    """Reads and prepares samples; called from several threads. ``order`` is that of the channels of
    records, ``numbers`` what labels become, ``classes`` how many the model knows."""

    def __init__(
        self,
        samples: Samples,
        preprocessing: Preprocessing,
        views: Views,
        *,
        classes: int,
        order: str = BGR,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._samples = samples
        self._preprocessing = preprocessing
        self._views = views
        self._classes = classes
        self._order = order
        self._numbers = numbers

    def __call__(self, chunk: list[Any]) -> Prepared:
        found = Prepared([], [], None, [], len(chunk))
        parts = []
        for sample in chunk:
            key = self._samples.key(sample)
            try:
                picture, label = self._samples.read(sample, self._preprocessing.record_mode)
                number = self._number(label)
                # Decoded images are BGR whatever the records that are stored raw.
                order = BGR if picture.interleaved else self._order
                stored = self._samples.stored
                parts.append(self._preprocessing.of_picture(picture, self._views, order, stored))
            except DataError as error:
                found.bad.append((key, str(error)))
                continue
            found.keys.append(key)
            found.labels.append(number)
        found.inputs = torch.stack(parts) if parts else None
        return found

    def _number(self, label: Label) -> int:
        if isinstance(label, np.ndarray):
            raise DataError(f"it has {label.size} labels, must have one")
        number = int(label or 0)  # a record without one has label 0, as in the Data layer
        if self._numbers is not None:
            return self._numbers[number]
        if not 0 <= number < self._classes:
            raise DataError(
                f"label {number} is out of range: the model has {self._classes} classes"
            )
        return number


def numbers_of(folders: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """The model's class for each folder: that of its name, or of its place where the model's
    classes are not called like folders. None without folders; DataError if they cannot be told.
    """
    if not folders:
        return None
    places = {name: number for number, name in enumerate(names)}
    if all(folder in places for folder in folders):
        return [places[folder] for folder in folders]
    if len(folders) == len(names):
        return list(range(len(folders)))
    strange = next(folder for folder in folders if folder not in places)
    raise DataError(
        f"there are {len(folders)} folders for the model's {len(names)} classes, and {strange!r} "
        "is no name of one; name the folders as the classes, or give their names with --labels"
    )
