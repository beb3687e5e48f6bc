"""The runs in a folder: each log of training, with the solver and net it names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...proto.errors import ConfigError, DataError
from .curves import Curves, read_lines, records

if TYPE_CHECKING:
    from google.protobuf.message import Message

_NET = re.compile(r"\] Creating training net from net file: (.+)$")
_NAME = re.compile(r"\] Solving (.*)$")
_STATE = re.compile(r"\] Snapshotting solver state to \S.* file (.+)_iter_\d+\.solverstate")
#: Blobs whose larger value is the better one.
_LARGER = ("accuracy", "top1", "top5", "iou", "map", "f1")


@dataclass(slots=True)
class Run:
    """A run as its log tells it. ``best`` and ``last`` are test scores by blob."""

    log: Path
    net: str = ""
    net_file: str = ""
    prefix: str = ""
    iterations: int = 0
    seconds: float = 0.0
    finished: bool = False
    curves: Curves = field(default_factory=lambda: Curves(""))

    @property
    def last(self) -> dict[str, float]:
        return {name: series[-1] for name, series in self._tests().items()}

    @property
    def best(self) -> dict[str, float]:
        return {
            name: (max if is_larger_better(name) else min)(series)
            for name, series in self._tests().items()
        }

    def _tests(self) -> dict[str, list[float]]:
        return {
            key.removeprefix("test/"): series.values
            for key, series in self.curves.series.items()
            if key.startswith("test/")
        }

    def solver_file(self) -> Path | None:
        """The solver of this run: the first in the log's folder that names the run's net."""
        for path in sorted(self.log.parent.glob("*.prototxt")):
            text = path.read_text("utf-8", "replace")
            if self.net_file and f'"{self.net_file}"' in text and "base_lr" in text:
                return path
        return None

    def net_path(self) -> Path | None:
        """The net's file: seen from the log's folder, beside the log, or as written."""
        folder, written = self.log.parent, Path(self.net_file)
        places = (folder / written, folder / written.name, written)
        return next((path for path in places if self.net_file and path.is_file()), None)


def is_larger_better(blob: str) -> bool:
    return any(word in blob.lower() for word in _LARGER)


def read_run(path: Path) -> Run | None:
    """The run that a log holds; None if it is the log of something else."""
    lines = read_lines(path)
    run = Run(path)
    for line in lines:
        if found := _NET.search(line):
            run.net_file = found[1]
        elif found := _NAME.search(line):
            run.net = found[1]
        elif found := _STATE.search(line):
            run.prefix = found[1]
        elif line.endswith("] Optimization Done."):
            run.finished = True
    run.curves = Curves(path.stem)
    for record in records(lines):
        run.curves.add(record.key, record.iteration, record.seconds, record.value)
        run.iterations = max(run.iterations, record.iteration)
        run.seconds = max(run.seconds, record.seconds)
    return run if run.curves.series else None


def find(folder: str) -> list[Run]:
    """Every run whose log lies in ``folder`` or below it; DataError if there is none."""
    top = Path(folder)
    if not top.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    found = [run for path in sorted(top.rglob("*.log")) if (run := read_run(path)) is not None]
    if not found:
        raise DataError(f"{folder}: no log of training in it (*.log; see train --log_file)")
    return found


# -- comparing -------------------------------------------------------------------------------------


def differences(first: Run, second: Run) -> Iterator[str]:
    """What two runs' solvers and nets do not have in common, in words."""
    solvers = first.solver_file(), second.solver_file()
    if None in solvers:
        yield "solver: not found beside both logs"
    else:
        yield from _compare_solvers(*(path for path in solvers if path is not None))
    nets = first.net_path(), second.net_path()
    if None in nets:
        yield "net: not found beside both logs"
    else:
        yield from _compare_nets(*(path for path in nets if path is not None))


def _compare_solvers(first: Path, second: Path) -> Iterator[str]:
    from ...proto.caffe_pb2 import SolverParameter
    from ...proto.files import read_prototxt

    one, two = (read_prototxt(path, SolverParameter).message for path in (first, second))
    for line in _fields(one, two):
        yield f"solver: {line}"


def _compare_nets(first: Path, second: Path) -> Iterator[str]:
    from ...proto.files import read_net

    sides = [read_net(path).message for path in (first, second)]
    layers = [_by_name(net) for net in sides]
    for name in dict.fromkeys([*layers[0], *layers[1]]):
        if name not in layers[1]:
            yield f"net: layer {name} ({layers[0][name].type}) is only in the first"
        elif name not in layers[0]:
            yield f"net: layer {name} ({layers[1][name].type}) is only in the second"
        else:
            for line in _fields(layers[0][name], layers[1][name]):
                yield f"net: layer {name}: {line}"


def _by_name(net: Any) -> dict[str, Any]:
    """Layers by name; where several share one, numbered."""
    found: dict[str, Any] = {}
    for layer in net.layer:
        name, count = layer.name, 1
        while name in found:
            count += 1
            name = f"{layer.name}#{count}"
        found[name] = layer
    return found


def _fields(one: Message, two: Message, prefix: str = "") -> Iterator[str]:
    """``base_lr: 0.1 became 0.01`` for each field of two messages that differs."""
    for field_ in one.DESCRIPTOR.fields:
        values = [getattr(side, field_.name) for side in (one, two)]
        if values[0] == values[1]:
            continue
        name = f"{prefix}{field_.name}"
        if field_.message_type is not None and not field_.is_repeated:
            yield from _fields(values[0], values[1], f"{name}.")
        else:
            before, after = (_text(side, field_.name) for side in (one, two))
            yield f"{name}: {before} became {after}"


def _text(message: Message, name: str) -> str:
    """A field's value as prototxt on one line; "unset" where it is not given."""
    from ...proto.text import to_text

    value = getattr(message, name)
    given = len(value) if hasattr(value, "__len__") and not isinstance(value, str) else True
    if not given or (not hasattr(value, "__len__") and not message.HasField(name)):
        return "unset"
    alone = type(message)()
    if hasattr(value, "__len__") and not isinstance(value, str | bytes):
        getattr(alone, name).extend(value)
    else:
        setattr(alone, name, value)
    return ", ".join(
        line.strip().removeprefix(f"{name}: ") for line in to_text(alone).splitlines() if line
    )


def by_name(runs: list[Run], name: str) -> Run:
    """The run whose log is ``name``, as path, file name or stem; ConfigError if there is none."""
    for run in runs:
        if name in (str(run.log), run.log.name, run.log.stem, run.log.parent.name):
            return run
    known = [str(run.log) for run in runs]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"no run {name!r}{hint} (there are {', '.join(known)})")
