"""The course of a run as series of numbers, read from its log, and drawn as charts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ...proto.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
#: About as many points a line has at most; more would not show.
POINTS = 2000

#: Stamps name no year; they are read as of 2000, which had 366 days.
_YEAR = timedelta(days=366)
_STAMP = re.compile(r"^[IWEF](\d{4} \d\d:\d\d:\d\d\.\d+) ")
_ITERATION = re.compile(r"\bIteration (\d+)\b")
_LOSS = re.compile(r"\bIteration \d+.*, loss = (\S+)")
_RATE = re.compile(r"\bIteration \d+, lr = (\S+)")
_OUTPUT = re.compile(r"\b(Train|Test) net output #\d+: (\S+) = (\S+)")


@dataclass(slots=True)
class Series:
    """Values of one quantity, each with its iteration and the seconds since the run began."""

    iterations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, iteration: int, seconds: float, value: float) -> None:
        self.iterations.append(iteration)
        self.seconds.append(seconds)
        self.values.append(value)


@dataclass(slots=True)
class Curves:
    """Every series of a run, by name: ``loss`` (smoothed), ``lr``, ``train/<blob>``,
    ``test/<blob>``."""

    name: str
    series: dict[str, Series] = field(default_factory=dict)

    def add(self, key: str, iteration: int, seconds: float, value: float) -> None:
        self.series.setdefault(key, Series()).add(iteration, seconds, value)


@dataclass(frozen=True, slots=True)
class Record:
    """One value in a log; ``key`` is that of :class:`Curves`."""

    key: str
    iteration: int
    seconds: float
    value: float


def read_log(path: str | Path) -> Curves:
    """The curves of the log file ``path``; DataError if it holds none."""
    return _collect(read_records(path), Path(path).stem)


def parse(lines: Iterable[str], name: str = "") -> Curves:
    """The curves of log lines; what is no line of a run is passed over."""
    return _collect(records(lines), name)


def _collect(found: Iterable[Record], name: str) -> Curves:
    curves = Curves(name)
    for each in found:
        curves.add(each.key, each.iteration, each.seconds, each.value)
    return curves


def read_lines(path: str | Path) -> list[str]:
    """The lines of a log; DataError if it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise DataError(f"log {str(path)!r}: {error.strerror}") from None


def read_records(path: str | Path) -> list[Record]:
    """Every value of the log file ``path``, in its order; DataError if it holds none."""
    found = list(records(read_lines(path)))
    if not found:
        raise DataError(f"log {str(path)!r}: no line of a training run in it")
    return found


def timed(lines: Iterable[str]) -> Iterator[tuple[float, str]]:
    """Each line with the seconds since the run began: since its line ``Solving``, or since the
    first line that tells the time."""
    began: datetime | None = None
    seconds = 0.0
    solving = False
    for line in lines:
        if stamp := _STAMP.match(line):
            # The year is not in the log; a leap year knows every date.
            now = datetime.strptime(f"2000{stamp[1]}", "%Y%m%d %H:%M:%S.%f")
            if began is not None and began - now > timedelta(days=1):
                now += _YEAR
            if began is None or ("Solving" in line and not solving):
                began, solving = now, "Solving" in line
            seconds = (now - began).total_seconds()
        yield seconds, line


def records(lines: Iterable[str]) -> Iterator[Record]:
    """The values in log lines: smoothed losses, learning rates, outputs of training and tests."""
    iteration = 0
    for seconds, line in timed(lines):
        if found := _ITERATION.search(line):
            iteration = int(found[1])
        if found := _LOSS.search(line):
            yield Record("loss", iteration, seconds, float(found[1]))
        elif found := _RATE.search(line):
            yield Record("lr", iteration, seconds, float(found[1]))
        elif found := _OUTPUT.search(line):
            key = f"{found[1].lower()}/{found[2]}"
            yield Record(key, iteration, seconds, float(found[3]))


@dataclass(frozen=True, slots=True)
class Chart:
    """One kind of chart: which series against iterations or seconds."""

    title: str
    key: str
    against: str

    @property
    def x_label(self) -> str:
        return "Iterations" if self.against == "iterations" else "Training seconds"

    def series_of(self, run: Curves) -> Series | None:
        """The run's series for this chart; where none is called so, one of a similar name, such
        as ``test/accuracy@5`` or ``test/loss3``."""
        similar = (key for key in sorted(run.series) if key.startswith(self.key))
        return run.series.get(self.key) or run.series.get(next(similar, ""))


_QUANTITIES = (
    ("Test accuracy", "test/accuracy"),
    ("Test loss", "test/loss"),
    ("Train learning rate", "lr"),
    ("Train loss", "loss"),
)

#: Caffe's eight charts by their numbers.
CHARTS: tuple[Chart, ...] = tuple(
    Chart(title, key, against)
    for title, key in _QUANTITIES
    for against in ("iterations", "seconds")
)


def plot(chart: Chart, runs: Sequence[Curves], path: str | Path) -> None:
    """Draw one chart of all ``runs`` into the image file ``path``."""
    figure, axes = _figure(1)
    for run in runs:
        series = chart.series_of(run)
        if series is None:
            known = ", ".join(sorted(run.series))
            raise ConfigError(f"log {run.name}: no {chart.title.lower()} in it (it has {known})")
        axes[0].plot(getattr(series, chart.against), series.values, label=run.name)
    axes[0].set(title=f"{chart.title} vs. {chart.x_label}", xlabel=chart.x_label)
    axes[0].set_ylabel(chart.title)
    axes[0].legend()
    save(figure, path)


def learning_curve(run: Curves, path: str | Path) -> None:
    """Draw losses and test accuracy of one run side by side into the image file ``path``."""
    figure, (losses, accuracy) = _figure(2)
    for key, label in (("loss", "training"), ("test/loss", "test")):
        if key in run.series:
            losses.plot(run.series[key].iterations, run.series[key].values, label=label)
    losses.set(title="loss", xlabel="iteration", yscale="log")
    losses.legend()
    if "test/accuracy" in run.series:
        series = run.series["test/accuracy"]
        accuracy.plot(series.iterations, series.values, "o-", color="tab:green", markersize=3)
    accuracy.set(title="test accuracy", xlabel="iteration", ylim=(0, 1.02))
    save(figure, path)


def rates(schedules: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Draw learning rates against iterations, one line for each schedule, by name."""
    figure, (axes,) = _figure(1)
    for name, values in schedules.items():
        stride = max(1, len(values) // POINTS)
        axes.plot(range(0, len(values), stride), values[::stride], label=name)
    axes.set(title="learning rate", xlabel="iteration")
    figure.legend(loc="outside lower center", ncols=3)
    save(figure, path)


def range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smooth: Sequence[float],
    suggestion: float | None,
    path: str | Path,
) -> None:
    """Draw the losses of a range test against the learning rate, and the rate it suggests."""
    figure, (axes,) = _figure(1)
    axes.plot(rates, losses, color="lightgray", label="loss")
    axes.plot(rates, smooth, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:red", linestyle="--", label=f"{suggestion:.2g}")
    finite = [value for value in smooth if math.isfinite(value)]
    if finite:
        room = 0.1 * (max(finite) - min(finite)) or 0.1
        axes.set_ylim(min(finite) - room, max(finite) + room)
    axes.set(title="range test", xlabel="learning rate", ylabel="loss", xscale="log")
    axes.legend()
    save(figure, path)


def overlaid(runs: Sequence[Curves], path: str | Path) -> None:
    """Draw the training losses of ``runs`` over one another, and each of their test scores."""
    tests = sorted({key for run in runs for key in run.series if key.startswith("test/")})
    keys = ["loss", *tests]
    figure, every = _figure(len(keys))
    for axes, key in zip(every, keys, strict=True):
        for run in runs:
            if key in run.series:
                axes.plot(run.series[key].iterations, run.series[key].values, label=run.name)
        axes.set(title="training loss" if key == "loss" else key, xlabel="iteration")
        axes.legend(fontsize=7)
    save(figure, path)


def _figure(columns: int) -> tuple[Figure, Sequence[Axes]]:
    # The figure is built without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * columns, 3), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def save(figure: Figure, path: str | Path) -> None:
    """Write a matplotlib figure; ConfigError for a file ending that it cannot write."""
    ending = Path(path).suffix.lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes() if figure.canvas else {}
    if ending not in known:
        raise ConfigError(f"{path}: must end in {', '.join(sorted(known))}, got {ending!r}")
    figure.savefig(path, dpi=DPI)
