"""Plot the learning rate that a solver's policy gives, warm-up included.

Several solvers are drawn into one picture. The rate of a plateau policy depends on the tests to
come; it is drawn without drops.

example:
  cortado plot_lr examples/digits/solver.prototxt --out rate.png
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from .variables import configure_set, read_solver_with

if TYPE_CHECKING:
    from ..solvers.requirements import SolverDocument


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("solvers", nargs="+", metavar="SOLVER", help="solver prototxt")
    parser.add_argument("--out", default="learning_rate.png", help="picture to write (.png, .svg)")
    parser.add_argument(
        "--iterations", type=int, default=0, help="how many iterations (default: max_iter)"
    )
    configure_set(parser, fields=True)


def run(args: argparse.Namespace) -> int:
    from ..solvers import policies
    from .output import curves

    schedules = {}
    for name in args.solvers:
        document = read_solver_with(name, args.set)
        if faults := list(policies.check(document)):
            raise ConfigError(faults)
        count = iterations(name, document, args.iterations)
        schedules[name] = list(policies.schedule(document.message, count))
    curves.rates(schedules, args.out)
    for name, rates in schedules.items():
        print(
            f"{name}: {len(rates):,} iterations, from {rates[0]:g} to {rates[-1]:g}, "
            f"at most {max(rates):g}"
        )
    print(f"Wrote {args.out}")
    return 0


def iterations(name: str, document: SolverDocument, flag: int) -> int:
    """How many iterations to draw; ConfigError if nobody says."""
    count = flag or document.message.max_iter
    if count <= 0:
        reason = "max_epoch counts epochs" if document.message.HasField("max_epoch") else ""
        raise ConfigError(
            f"{name}: it has no max_iter to draw{f' ({reason})' if reason else ''}; "
            f"give --iterations, greater than 0"
        )
    if not document.message.max_iter:
        document.message.max_iter = count  # policies that end with the run need to know
    return count
