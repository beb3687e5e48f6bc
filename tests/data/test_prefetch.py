"""The prefetcher: order, bounds, and that it never hangs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from cortado.layers.data.prefetch import Prefetcher
from cortado.proto.errors import DataError, ResourceError


def counting() -> Callable[[], int]:
    return itertools.count().__next__


def test_results_come_in_order_however_long_they_take() -> None:
    def load(number: int) -> int:
        time.sleep(0.005 * (number % 3 == 0))
        return number

    line = Prefetcher(counting(), load, depth=5, threads=4)
    assert [line.next() for _ in range(40)] == list(range(40))
    line.close()


def test_no_more_than_depth_are_planned_ahead() -> None:
    planned = []
    count = itertools.count()

    def plan() -> int:
        planned.append(next(count))
        return planned[-1]

    line = Prefetcher(plan, lambda number: number, depth=3, threads=2)
    line.next()
    time.sleep(0.1)
    assert len(planned) == 4
    line.close()


def test_an_error_comes_with_its_own_batch() -> None:
    def load(number: int) -> int:
        if number == 2:
            raise DataError("record 2 is bad")
        return number

    line = Prefetcher(counting(), load, depth=4, threads=3)
    assert [line.next(), line.next()] == [0, 1]
    with pytest.raises(DataError, match="record 2"):
        line.next()
    with pytest.raises(ResourceError, match="closed"):
        line.next()


def test_an_error_of_planning_is_raised() -> None:
    def plan() -> int:
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        Prefetcher(plan, lambda number: number, depth=2).next()


def test_a_loader_that_hangs_is_reported() -> None:
    release = threading.Event()
    line = Prefetcher(counting(), lambda _: release.wait(), depth=1, stall_seconds=0.2)
    with pytest.raises(ResourceError, match="no batch within"):
        line.next()
    release.set()
    line.close()


def test_closing_ends_the_threads_and_may_be_repeated() -> None:
    before = threading.active_count()
    line = Prefetcher(counting(), lambda number: number, depth=3, threads=3)
    line.next()
    line.close()
    line.close()
    assert threading.active_count() == before
