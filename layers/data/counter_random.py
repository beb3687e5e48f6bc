"""Random numbers as a pure function of counters, for sampling that needs no generator state.

Each counter is folded into a 64-bit state by the output function of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). The same (seed, epoch,
index) gives the same number on every thread and after every resume.
"""

from __future__ import annotations

import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_PART = 2**16


class Purpose(IntEnum):
    """What a number is drawn for: each purpose has numbers of its own."""

    ROW = 1
    COLUMN = 2
    MIRROR = 3
    SKIP = 4
    SHUFFLE = 5
    FILL = 6
    WINDOW = 7
    AUGMENT = 8
    MIX = 9
    BALANCE = 10


def words(seed: int, *counters: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each element of the (broadcast) counters; at least one-dimensional."""
    state = np.atleast_1d(np.uint64(seed & (2**64 - 1)))
    for counter in counters:
        step = np.atleast_1d(np.asarray(counter)).astype(np.uint64) + np.uint64(1)
        state = _scramble(state + _GOLDEN * step)
    return state


def word(seed: int, *counters: int) -> int:
    """64 random bits for one tuple of counters."""
    return int(words(seed, *counters)[0])


def scrambled(state: int) -> int:
    """The output function of SplitMix64 for one state, in plain integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def below(random_word: int, bound: int) -> int:
    """An integer in [0, ``bound``) made of a 64-bit word, without the bias of a remainder."""
    return (random_word * bound) >> 64


def named_seed(seed: int, name: str) -> int:
    """The seed of one layer: layers of different names see different numbers."""
    return word(seed, zlib.crc32(name.encode()))


def permutation(count: int, seed: int, *counters: int) -> NDArray[np.int64]:
    """The integers below ``count`` in the order that the counters give."""
    keys = np.empty(count, np.uint64)
    # In parts, because the steps in between would take six times the memory of the result.
    for start in range(0, count, _PART):
        stop = min(start + _PART, count)
        keys[start:stop] = words(seed, *counters, np.arange(start, stop))
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def _scramble(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
