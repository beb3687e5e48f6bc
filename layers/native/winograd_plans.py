"""Which way of Winograd's filtering takes the least time for a convolution, if any does.

Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import library

#: Channels that each side of a group must have a multiple of: lanes of the widest vectors.
LANES = 16
#: Columns of a panel of filters, to which counts of channels are rounded up.
PANEL = 32
MOST_CHANNELS = 8192

# What a thread takes for one of each, in nanoseconds, as fitted on a processor with AVX-512: only
# their proportions matter, to choose the fastest way.
_DIRECT_PRODUCT = 0.0129
_DIRECT_FILTER = 1.0
_PRODUCT = 0.0133
_TILE_POINT = 0.25
#: Finding it and reading it, or reading it alone; by whether each thread holds all points of the
#: filters or they are many, and shared.
_FILTER_POINT = {False: 0.3, True: 0.9}
_KEPT_FILTER_POINT = {False: 0.3, True: 0.8}
#: A way must be faster than the direct convolution by this to be taken, so that it is.
_MARGIN = 0.9

#: Filters with more points than this are shared by the threads, each of which would read them all.
_SHARED_POINTS = 1 << 20
#: Points of tiles that stay in a thread's cache, and tiles of a shared block.
_CACHED_POINTS = 1 << 17
_SHARED_TILES = 64


Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """F(out x out, taps x taps), on tiles of ``tile`` x ``tile``."""

    out: int
    taps: int

    @property
    def tile(self) -> int:
        return self.out + self.taps - 1

    @property
    def points(self) -> int:
        return self.tile**2

    def run(self, operation: str, signature: str, *arguments: Any) -> None:
        name = f"winograd_{self.out}_{self.taps}_{operation}"
        found = library.function("winograd", name, signature)
        assert found is not None  # problem_of() has seen to it
        found(*arguments)


CASES = (Case(4, 3), Case(2, 3), Case(2, 5))


@dataclass(frozen=True, slots=True)
class Problem:
    """One convolution of one group: ``channels`` of ``x_step`` in a pixel to ``outputs`` of
    ``y_step``, at stride 1."""

    images: int
    height: int
    width: int
    pad: int
    channels: int
    outputs: int
    taps: int
    group: int

    @property
    def top(self) -> tuple[int, int]:
        more = 2 * self.pad - self.taps + 1
        return self.height + more, self.width + more

    def turned(self) -> Problem:
        """The convolution that gives the gradient of the bottom."""
        height, width = self.top
        pad = self.taps - 1 - self.pad
        return Problem(
            self.images, height, width, pad, self.outputs, self.channels, self.taps, self.group
        )

    def tiles(self, case: Case) -> int:
        return self.images * -(-self.top[0] // case.out) * -(-self.top[1] // case.out)

    def fastest(self, kept: bool = False) -> Case | None:
        """The case that takes the least time by estimate, None for the direct convolution.

        ``kept``: the points of the filters are found once for many passes.
        """
        products = self.images * self.top[0] * self.top[1] * self.taps**2
        filters = self.channels * self.outputs
        least = filters * (products * _DIRECT_PRODUCT + self.taps**2 * _DIRECT_FILTER) * _MARGIN
        best = None
        for case in CASES:
            if case.taps == self.taps and (taken := self._nanoseconds(case, kept)) < least:
                least, best = taken, case
        return best

    def _nanoseconds(self, case: Case, kept: bool) -> float:
        filter_point = (_KEPT_FILTER_POINT if kept else _FILTER_POINT)[self.shares(case)]
        tile_points = self.tiles(case) * case.points
        outputs = round_up(self.outputs, PANEL)
        return (
            tile_points * self.channels * outputs * _PRODUCT
            + tile_points * (self.channels + outputs) * _TILE_POINT
            + case.points * self.channels * outputs * filter_point
        )

    def shares(self, case: Case) -> bool:
        """Whether the threads do one block of tiles together, rather than each its own."""
        return case.points * self.channels * self.outputs > _SHARED_POINTS

    def block(self, case: Case, threads: int) -> int:
        """Tiles that are done at a time, by one thread or by all: for each about as many."""
        tiles, shared = self.tiles(case), self.shares(case)
        most = _CACHED_POINTS // (case.points * (self.channels + self.outputs))
        most = _SHARED_TILES if shared else max(24, min(96, most))
        team = 1 if shared else threads
        rounds = -(-tiles // (most * team))
        return round_up(-(-tiles // (rounds * team)), 8)

    def geometry(self) -> Any:
        given = (self.images, self.height, self.width, self.pad, self.channels, self.outputs)
        return library.numbers(*given, self.channels * self.group, self.outputs * self.group)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a convolution is computed: the case for its top, for the gradient of its bottom and for
    that of its filters; None is torch's own way."""

    problem: Problem
    forward: Case | None
    bottom: Case | None
    filters: Case | None


def plan(
    x: Tensor, weight: Tensor, stride: Sizes, pad: Sizes, dilation: Sizes, group: int
) -> Plan | None:
    """How to convolve ``x`` (N, C, H, W) with ``weight`` (K, C / group, taps, taps), both
    channels-last; None where torch's way is the fastest or the only one."""
    if not library.suits(x, weight):
        return None
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    if not weight.is_contiguous(memory_format=torch.channels_last):
        return None
    problem = problem_of(tuple(x.shape), tuple(weight.shape), stride, pad, dilation, group)
    return None if problem is None else _planned(problem)


@cache
def problem_of(
    shape: Sizes, filters: Sizes, stride: Sizes, pad: Sizes, dilation: Sizes, group: int
) -> Problem | None:
    """The convolution of a blob of this ``shape`` with ``filters`` (K, C / group, taps, taps), if
    the kernels are there and can do it."""
    if len(filters) != 4 or filters[2] != filters[3] or filters[2] not in (3, 5):
        return None
    outputs, channels, taps, _ = filters
    if any(each != 1 for each in (*stride, *dilation)) or pad[0] != pad[1] or pad[0] >= taps:
        return None
    if channels % LANES or outputs // group % LANES or max(shape[1], outputs) > MOST_CHANNELS:
        return None
    images, _, height, width = shape
    problem = Problem(images, height, width, pad[0], channels, outputs // group, taps, group)
    if min(*problem.top, images) < 1:
        return None
    compiled = library.function("winograd", "winograd_4_3_filters", "piipi")
    return None if compiled is None else problem


@cache
def _planned(problem: Problem) -> Plan | None:
    forward, bottom = problem.fastest(), problem.turned().fastest()
    if forward is None and bottom is None:
        return None
    return Plan(problem, forward, bottom, forward)


def round_up(count: int, unit: int) -> int:
    """The least multiple of ``unit`` that is not below ``count``."""
    return -(-count // unit) * unit
