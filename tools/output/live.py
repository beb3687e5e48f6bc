"""What a terminal shows at its foot while a net trains: progress, and the last test's results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live as Foot
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ...solvers import events
from ...solvers.events import Event, Output
from .glog import TERMINAL
from .log import number

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Facts:
    """What events do not tell: how many images an iteration takes, and how many an epoch has (0:
    not known), and the device."""

    images: int = 0
    records: int = 0
    device: str = "cpu"


class Live:
    """A listener of solver events that keeps a progress bar and a table of tests up to date."""

    def __init__(self, progress: Progress, facts: Facts) -> None:
        self._progress = progress
        self._facts = facts
        #: The parts of the line behind the bar, in the order in which they are shown.
        self._parts = dict.fromkeys(("epoch", "loss", "rate", "memory", "test", "features"), "")
        self._tests: dict[tuple[int, str, int], tuple[float, float | None]] = {}
        self._tested_at = 0
        self._task = progress.add_task("train", total=None, detail="", images=facts.images)

    def __call__(self, event: Event) -> None:
        match event:
            case events.TrainingStarted(iteration=done, max_iter=total):
                self._progress.update(self._task, total=total, completed=done)
            case events.Restored(iteration=done):
                self._progress.update(self._task, completed=done)
            case events.IterationDone(iteration=done):
                self._progress.update(self._task, completed=done)
                self._show("epoch", self._epoch(done))
            case events.Displayed(loss=loss):
                self._show("loss", f"loss {number(loss)}")
                self._show("memory", self._memory())
            case events.RateDisplayed(rate=rate):
                self._show("rate", f"lr {number(rate)}")
            case events.CachingFeatures(done=done, total=total):
                self._show("features", f"features {done}/{total}" if done < total else "")
            case events.TestProgress(batch=batch, batches=batches):
                self._show("test", f"testing {batch}/{batches}")
            case events.TestFinished(weights="", iteration=done, index=index, outputs=outputs):
                self._show("test", "")
                self._enter(done, index, outputs)
            case events.TestFinished() | events.TestInterrupted():
                self._show("test", "")

    def render(self) -> RenderableType:
        return Group(self._table(), self._progress) if self._tests else self._progress

    def _show(self, part: str, text: str) -> None:
        if self._parts[part] != text:
            self._parts[part] = text
            detail = "  ".join(each for each in self._parts.values() if each)
            self._progress.update(self._task, detail=detail)

    def _epoch(self, done: int) -> str:
        facts = self._facts
        return f"epoch {done * facts.images / facts.records:.1f}" if facts.records else ""

    def _memory(self) -> str:
        if not self._facts.device.startswith("cuda"):
            return ""
        import torch

        return f"{torch.cuda.max_memory_allocated(self._facts.device) / GIB:.1f} GiB"

    def _enter(self, iteration: int, net: int, outputs: tuple[Output, ...]) -> None:
        self._tested_at = iteration
        for place, output in enumerate(outputs):
            key = (net, output.blob, place)
            before = self._tests[key][0] if key in self._tests else None
            self._tests[key] = output.value, before

    def _table(self) -> Table:
        table = Table(title=f"test at {self._tested_at}", title_justify="left", show_edge=False)
        for heading in ("net", "output"):
            table.add_column(heading)
        for heading in ("now", "before"):
            table.add_column(heading, justify="right")
        for (net, blob, _), (now, before) in self._tests.items():
            was = "" if before is None else number(before)
            table.add_row(f"#{net}", blob, Text(number(now), "bold"), was)
        return table


class Speed(ProgressColumn):
    """Iterations and images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        images = task.fields.get("images", 0)
        text = f"{speed:.3g} it/s"
        return Text(f"{text}  {speed * images:.4g} img/s" if images else text, style="cyan")


def columns() -> list[ProgressColumn]:
    """The columns of the progress bar's line."""
    return [
        TextColumn("[bold]{task.completed}/{task.total}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[detail]}"),
        Speed(),
        TimeRemainingColumn(),
    ]


@contextmanager
def live(facts: Facts, quiet: bool = False) -> Iterator[list[Callable[[Event], None]]]:
    """The listeners that show a run live: on a terminal a foot that keeps below the log's lines."""
    if quiet or not sys.stderr.isatty():
        yield []
        return
    console = Console(stderr=True)
    shown = Live(Progress(*columns(), console=console), facts)
    foot = Foot(get_renderable=shown.render, console=console, refresh_per_second=4, transient=True)
    with foot:
        TERMINAL.show = lambda line: console.print(
            line, markup=False, highlight=False, soft_wrap=True, style=style(line)
        )
        try:
            yield [shown]
        finally:
            TERMINAL.show = TERMINAL.plain


def style(line: str) -> str:
    """How rich shows a line of the log."""
    if " Test net output #" in line:
        return "green"
    return {"W": "yellow", "E": "red", "F": "red"}.get(line[0], "")
