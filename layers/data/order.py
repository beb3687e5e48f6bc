"""In which order the records of an epoch come: as stored, shuffled, or balanced by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counter_random import Purpose, permutation, words

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Order:
    """The order of ``count`` records in each epoch; it depends on seed and epoch only.

    With ``groups``, the places of the records of each label, an epoch has ``count`` draws of which
    each label has the same chance, and each record of a label. Otherwise each record comes once.
    """

    count: int
    shuffled: bool = False
    groups: tuple[Places, ...] | None = None

    def places(self, seed: int, epoch: int) -> Places:
        """The places of an epoch's records."""
        if self.groups is not None:
            return _balanced(self.groups, self.count, seed, epoch)
        if self.shuffled:
            return permutation(self.count, seed, Purpose.SHUFFLE, epoch)
        return np.arange(self.count)

    def identities(self, places: Places, numbers: Places) -> Places:
        """What tells the draws of an epoch apart: the record, or a number where it may repeat."""
        return places if self.groups is None else numbers


def by_label(labels: Sequence[float] | NDArray) -> tuple[Places, ...]:
    """The places of the records of each label, labels ascending."""
    values = np.asarray(labels)
    sorting = np.argsort(values, kind="stable")
    cuts = np.flatnonzero(np.diff(values[sorting])) + 1
    return tuple(np.split(sorting, cuts))


def _balanced(groups: tuple[Places, ...], count: int, seed: int, epoch: int) -> Places:
    numbers = np.arange(count)
    group = _below(words(seed, Purpose.BALANCE, epoch, 0, numbers), len(groups))
    sizes = np.array([len(each) for each in groups])
    member = _below(words(seed, Purpose.BALANCE, epoch, 1, numbers), sizes[group])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.concatenate(groups)[starts[group] + member]


def _below(random_words: NDArray[np.uint64], bounds: NDArray | int) -> Places:
    """An integer below each bound; bounds are far below 2^53."""
    fractions = (random_words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (fractions * bounds).astype(np.int64)


class Walk:
    """The places of an order, epoch after epoch, from a position on."""

    def __init__(self, order: Order, seed: int, epoch: int = 0, index: int = 0) -> None:
        self._order = order
        self._seed = seed
        self.epoch = epoch
        self.index = index
        self._places: tuple[int, NDArray[Any]] = (-1, np.empty(0, np.int64))

    def take(self, count: int) -> tuple[Places, Places, Places]:
        """Places, epochs and numbers (within the epoch) of the next ``count`` records."""
        places, epochs, numbers = (np.empty(count, np.int64) for _ in range(3))
        taken = 0
        while taken < count:
            part = self._places_of(self.epoch)[self.index : self.index + count - taken]
            found = slice(taken, taken + len(part))
            places[found] = part
            epochs[found] = self.epoch
            numbers[found] = np.arange(self.index, self.index + len(part))
            taken += len(part)
            self.index += len(part)
            if self.index == self._order.count:
                self.epoch, self.index = self.epoch + 1, 0
        return places, epochs, numbers

    def _places_of(self, epoch: int) -> NDArray[Any]:
        if self._places[0] != epoch:
            places = self._order.places(self._seed, epoch)
            # They are kept for an epoch: four bytes a record are enough for four thousand million.
            self._places = (epoch, places.astype(np.min_scalar_type(self._order.count)))
        return self._places[1]
