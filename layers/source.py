"""What feeds a net: data layers stand outside the traced computation and hand it batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..proto import caffe_pb2
from .arguments import construct
from .base import Arity, Context, Shape, exactly


class DataSource:
    """Base of the data layers (Data, ImageData, HDF5Data, DummyData, Input ...).

    A subclass registers itself like a layer. It must know its top shapes once it is built (a
    database is opened only as far as that needs); threads and buffers start with the first
    :meth:`next`, and :meth:`close` ends them. Which record comes when, and how it is augmented,
    depends only on (seed, epoch, position), never on threads or generators, so that
    :meth:`state_dict` can be a few numbers and a resumed run sees exactly what it would have seen.
    """

    type: ClassVar[str] = ""
    message_field: ClassVar[str] = ""
    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = exactly(1)
    #: False where the caller feeds the tops (Input); such a source is never asked for batches.
    delivers: ClassVar[bool] = True
    #: Why what is computed of the records cannot be kept, unless it is a :class:`NumberedSource`.
    unnumbered: ClassVar[str] = "its records have no numbers to find what is kept of them by"

    #: Shape of each top of one batch, in the order of the tops.
    shapes: tuple[Shape, ...]

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> DataSource:
        """Build the source that ``message`` declares; LayerError or DataError if it cannot work."""
        return construct(cls, message, context)

    def preset(self, device: torch.device) -> tuple[Tensor | None, ...]:
        """What the tops hold before the first batch: the tensor that every batch will bring, on
        ``device``, for a top that never changes, None for the others."""
        return (None,) * len(self.shapes)

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        """The next batch, one tensor a top, on ``device``."""
        raise LookupError(f"{self.type} layers deliver no data by themselves")

    @property
    def records(self) -> int | None:
        """How many records one epoch has; None where there is no such number."""
        return None

    @property
    def last_keys(self) -> tuple[str, ...]:
        """What the records of the last batch are called where they come from, in the batch's order;
        empty for a source whose records have no names."""
        return ()

    def expect_labels(self, top: int, classes: int, ignored: frozenset[int]) -> None:
        """Check that every value of ``top`` is a whole number from 0 to ``classes`` - 1 or ignored.

        Sources whose labels come from outside override this; a wrong one is a DataError from
        :meth:`next` that names the record.
        """

    def preprocessing(self, blob: str) -> caffe_pb2.Preprocessing | None:
        """How images become the first top, called ``blob`` by the net; None if there is no such."""
        return None

    def seed(self, seed: int) -> None:
        """Set the seed that sampling and augmentation derive from; before the first batch."""

    def state_dict(self) -> dict[str, Any]:
        """The position: plain numbers and strings, enough to continue exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that :meth:`state_dict` gave."""

    def close(self) -> None:
        """End threads and release files; the source can be asked again and then starts anew."""


@dataclass(frozen=True, slots=True)
class Variation:
    """What makes a record's tops differ from epoch to epoch: the ``field`` that asks for it, and
    whether they depend on the ``batch`` that the record is in."""

    field: str
    batch: bool = False


class NumberedSource(DataSource):
    """A source whose records have numbers, in stored order, so that what is computed of them can be
    kept and found again."""

    @abstractmethod
    def variation(self) -> Variation | None:
        """What makes a record's tops differ from epoch to epoch; None if nothing does."""

    @abstractmethod
    def advance(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Move on by one batch as :meth:`next` does, but read nothing: the epochs and the numbers
        of the records that it would have brought."""

    @abstractmethod
    def sweep(self, device: torch.device, epoch: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Batches of all records once, in stored order, as they are prepared in ``epoch``.

        The last batch is filled up with records that came before. The position stays. A bad record
        is a DataError, even where :meth:`next` would pass over it.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A text that changes when the records or their labels may have changed."""
