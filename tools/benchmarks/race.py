"""Racing contenders in turns, each in a process of its own, and what the times say."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ...proto.errors import CortadoError
from .caffe import CaffeRunner
from .contenders import Course

#: Time one turn should take at least, in ms; short steps are repeated until they fill it.
TURN = 150.0


class RaceError(CortadoError):
    """A race that has no result; others may."""


@dataclass(slots=True)
class Result:
    """Times of one contender: milliseconds a step, turn by turn."""

    name: str
    loss: float | None
    times: list[float] = field(default_factory=list)
    peak: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.times)


class Runner:
    """The process of one contender, which imports torch while those before it are at work."""

    def __init__(self, name: str, course: Course, threads: int, clock: str, warmup: int) -> None:
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._order = {
            "name": name,
            "course": asdict(course) | {"settings": dict(course.settings)},
            "threads": threads,
            "clock": clock,
            "warmup": warmup,
        }
        self.first: dict[str, Any] = {}

    def prepare(self) -> None:
        """Build the net and run its first steps; what it said of itself is in ``first``."""
        self.first = self._ask(json.dumps(self._order))

    def run(self, count: int) -> dict[str, Any]:
        return self._ask(str(count))

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # the answer, or its absence, tells
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RaceError(f"bench: {self.name} ended early; what it said stands above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


def race(
    course: Course,
    names: Sequence[str],
    rounds: int,
    threads: int = 0,
    clock: str = "wall",
    caffe: str = "",
) -> tuple[list[Result], int]:
    """Results in the order of ``names``, and the MACs of a forward pass; turns alternate.

    The binary ``caffe``, if given, comes last.

    RaceError if one ends early, or computes another loss: then they do not run the same net.
    """
    runners: list[Runner | CaffeRunner] = []
    try:
        started = [Runner(name, course, threads, clock, warmup=2) for name in names]
        runners += started
        for contender in started:
            contender.prepare()
        if caffe:
            runners.append(CaffeRunner(caffe, course, threads))
        results = [Result(each.name, each.first["loss"]) for each in runners]
        _check_losses(results, 1e-3 if course.precision in ("FP32", "TF32") else 5e-2)
        macs = max(each.first.get("macs", 0) for each in runners)
        counts = {each: max(1, round(TURN / each.run(1)["ms"])) for each in runners}
        pairs = list(zip(runners, results, strict=True))
        for number in range(rounds):
            for runner, result in pairs if number % 2 else reversed(pairs):
                answer = runner.run(counts[runner])
                result.times.append(answer["ms"])
                result.peak = answer["peak"]
        return results, macs
    finally:
        for each in runners:
            each.close()


def _check_losses(results: Sequence[Result], tolerance: float) -> None:
    first = results[0]
    assert first.loss is not None
    for other in results[1:]:
        if other.loss is None:
            continue
        if not abs(other.loss - first.loss) <= tolerance * max(1.0, abs(first.loss)):
            raise RaceError(
                f"bench: {other.name} has loss {other.loss:g} where {first.name} has "
                f"{first.loss:g}; they do not run the same net"
            )


def ratio(slow: Result, fast: Result) -> tuple[float, float, float]:
    """How many times ``fast`` is faster: median of the ratios of neighbouring turns, quartiles."""
    each = sorted(a / b for a, b in zip(slow.times, fast.times, strict=True))
    if len(each) < 2:
        return each[0], each[0], each[0]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return middle, low, high


def summary(course: Course, results: Sequence[Result], macs: int, images: int) -> Mapping[str, Any]:
    """The results as values for JSON."""
    ours = results[0]
    passes = 3 if course.training else 1
    return {
        "course": asdict(course),
        "images": images,
        "gflop": 2 * passes * macs / 1e9,
        "contenders": {
            each.name: {
                "ms": each.median,
                "images_per_second": images * 1000 / each.median,
                "peak_mib": each.peak,
                "gflops": 2 * passes * macs / each.median / 1e6,
                "times": each.times,
                "ratio": ratio(each, ours),
            }
            for each in results
        },
    }
