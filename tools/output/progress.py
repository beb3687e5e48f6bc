"""A live line at the foot of the terminal while a net trains: loss, rate, speed, time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ...solvers import events
from ...solvers.events import Event
from .glog import TERMINAL
from .log import number


class Live:
    """A listener of solver events that keeps a progress bar up to date.

    ``images`` is how many images one iteration consumes (0 if that is not known).
    """

    def __init__(self, progress: Progress, images: int) -> None:
        self._progress = progress
        self._images = images
        self._loss = self._rate = self._test = ""
        self._task = progress.add_task("train", total=None, detail="", images=images)

    def __call__(self, event: Event) -> None:
        match event:
            case events.TrainingStarted(iteration=done, max_iter=total):
                self._progress.update(self._task, total=total, completed=done)
            case events.IterationDone(iteration=done):
                self._progress.update(self._task, completed=done)
            case events.Displayed(loss=loss):
                self._loss = f"loss {number(loss)}"
                self._describe()
            case events.RateDisplayed(rate=rate):
                self._rate = f"lr {number(rate)}"
                self._describe()
            case events.TestProgress(batch=batch, batches=batches):
                self._test = f"testing {batch}/{batches}"
                self._describe()
            case events.TestFinished() | events.TestInterrupted():
                self._test = ""
                self._describe()

    def _describe(self) -> None:
        parts = (part for part in (self._loss, self._rate, self._test) if part)
        self._progress.update(self._task, detail="  ".join(parts))


class Speed(ProgressColumn):
    """Iterations and images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        images = task.fields.get("images", 0)
        text = f"{speed:.3g} it/s"
        return Text(f"{text}  {speed * images:.4g} img/s" if images else text, style="cyan")


@contextmanager
def live(images: int) -> Iterator[list[Callable[[Event], None]]]:
    """The listeners that show a run live: on a terminal a line that keeps below the log's."""
    if not sys.stderr.isatty():
        yield []
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]{task.completed}/{task.total}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[detail]}"),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4, transient=True) as progress:
        TERMINAL.show = lambda line: console.print(
            line, markup=False, highlight=False, soft_wrap=True, style=_style(line)
        )
        try:
            yield [Live(progress, images)]
        finally:
            TERMINAL.show = TERMINAL.plain


def _style(line: str) -> str:
    return {"W": "yellow", "E": "red"}.get(line[0], "")
