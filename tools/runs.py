"""List the runs under a folder, compare two of them, draw their curves over one another.

cortado runs list FOLDER                   every run: net, iterations, time, best and last scores
cortado runs diff FOLDER FIRST SECOND      what differs in solver and net, in words, and in scores
cortado runs overlay FOLDER OUT [RUN ...]  losses and test scores of several runs in one picture

A run is a log of cortado train (--log_file, ending in .log). It goes by its path or name.

example:
  cortado runs list experiments/
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from .check import aligned
from .flags import named

if TYPE_CHECKING:
    from .output.found_runs import Run


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", type=named("action", ACTIONS), metavar="ACTION", help=", ".join(ACTIONS)
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder with logs, also below it")
    parser.add_argument("names", nargs="*", metavar="...", help="runs, or the picture to write")


def run(args: argparse.Namespace) -> int:
    from .output.found_runs import find

    action = ACTIONS[args.action]
    action(find(args.folder), args.names)
    return 0


def list_runs(runs: list[Run], names: list[str]) -> None:
    rows = [("run", "net", "solver", "iterations", "time", "state", "last", "best")]
    for each in runs:
        solver = each.solver_file()
        rows.append(
            (
                str(each.log),
                each.net,
                "" if solver is None else solver.name,
                str(each.iterations),
                f"{each.seconds:.0f} s",
                "done" if each.finished else "unfinished",
                _scores(each.last),
                _scores(each.best),
            )
        )
    print(aligned(rows, right=(3, 4)))


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(scores.items()))


def diff(runs: list[Run], names: list[str]) -> None:
    from .output.found_runs import by_name, differences

    if len(names) != 2:
        raise ConfigError(f"cortado runs diff: needs two runs, got {len(names)}")
    first, second = (by_name(runs, name) for name in names)
    print(f"{first.log} -> {second.log}")
    lines = list(differences(first, second))
    print("\n".join(lines) if lines else "solver and net are the same")
    for name, value in sorted(first.last.items()):
        if name in second.last:
            other = second.last[name]
            print(f"test {name}: {value:.4g} -> {other:.4g} ({other - value:+.4g})")


def overlay(runs: list[Run], names: list[str]) -> None:
    from .output.curves import overlaid
    from .output.found_runs import by_name

    if not names:
        raise ConfigError("cortado runs overlay: name the picture to write")
    picture, *chosen = names
    found = [by_name(runs, name) for name in chosen] or runs
    labels = _short([each.log for each in found])
    for each, label in zip(found, labels, strict=True):
        each.curves.name = label
    overlaid([each.curves for each in found], picture)
    print(f"Wrote {picture}")


def _short(logs: list[Path]) -> list[str]:
    """The names of logs, with their folders where names alone would not tell them apart."""
    stems = [log.stem for log in logs]
    return stems if len(set(stems)) == len(stems) else [str(log.with_suffix("")) for log in logs]


ACTIONS: dict[str, Callable[..., None]] = {
    "list": list_runs,
    "diff": diff,
    "overlay": overlay,
}
