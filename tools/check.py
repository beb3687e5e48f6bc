"""Check a net or solver without running it: a table of its layers, or everything wrong with it.

For a solver its train net and test nets are checked as well; all faults are shown together. What
is legal but probably not meant is a warning. With --data every record of the databases is read and
held against the net: labels, sizes, the mean.

example:
  cortado check examples/digits/solver.prototxt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError, Fault
from .flags import comma_list, one_of, switch
from .variables import configure_set, settings

if TYPE_CHECKING:
    from ..netdef.blueprint import Blueprint


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="net or solver prototxt")
    parser.add_argument(
        "--phase", type=one_of("train", "test"), help="phase of a net (default: both)"
    )
    switch(parser, "data", "read the databases as well")
    configure_set(parser)
    parser.add_argument("--level", type=int, default=0, help="level of the net's state")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")


def run(args: argparse.Namespace) -> int:
    faults: list[Fault] = []
    warnings: list[Fault] = []
    broken: list[str] = []
    for name in args.files:
        with collecting(faults):
            for title, plan in plans(name, args, faults):
                print(f"{title}\n{table(plan)}\n")
                warnings += plan.warnings
                if args.data:
                    with collecting_data(broken):
                        warnings += _read_data(plan)
    for warning in dict.fromkeys(warnings):
        print(f"warning: {warning}\n", file=sys.stderr)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    if broken:
        raise DataError("\n".join(dict.fromkeys(broken)))
    return 0


def _read_data(plan: Blueprint) -> list[Fault]:
    from .records import read_through

    warnings = []
    for found in read_through(plan):
        if isinstance(found, Fault):
            warnings.append(found)
        else:
            print(found)
    return warnings


@contextmanager
def collecting(faults: list[Fault]) -> Iterator[None]:
    """Add the faults that the block finds to ``faults`` instead of raising them."""
    try:
        yield
    except ConfigError as error:
        faults += error.faults


@contextmanager
def collecting_data(broken: list[str]) -> Iterator[None]:
    """Add what is wrong with data to ``broken`` instead of raising it."""
    try:
        yield
    except DataError as error:
        broken.append(str(error))


def plans(
    name: str, args: argparse.Namespace, faults: list[Fault]
) -> Iterator[tuple[str, Blueprint]]:
    """A title and a plan for each net that the file ``name`` declares."""
    from ..netdef import blueprint
    from ..netdef.advice import advise
    from ..proto.files import is_solver

    if is_solver(name):
        yield from _solver_plans(name, args, faults)
        return
    values = settings(args)
    for phase in (args.phase.upper(),) if args.phase else ("TRAIN", "TEST"):
        with collecting(faults):
            plan = blueprint.draw(name, phase, args.level, comma_list(args.stage), values)
            plan.warnings += advise(plan)
            yield f"{name} ({phase})", plan


def _solver_plans(
    name: str, args: argparse.Namespace, faults: list[Fault]
) -> Iterator[tuple[str, Blueprint]]:
    from ..netdef import blueprint
    from ..netdef.advice import advise
    from ..proto.files import read_solver
    from ..solvers import advice, checks, nets

    document = read_solver(name, settings(args))
    with collecting(faults):
        checks.check(document)
    definitions = []
    if not any(True for _ in nets.check(document)):
        with collecting(faults):
            definitions.append(nets.train_definition(document, args.level, comma_list(args.stage)))
            definitions += nets.test_definitions(document)
    for index, each in enumerate(definitions):
        state = each.state
        title = f"{each.source or name}: " + (f"test net #{index - 1}" if index else "train net")
        with collecting(faults):
            plan = blueprint.draw(each.document, state.phase, state.level, state.stage)
            plan.warnings += advise(plan)
            if index:
                plan.warnings += advice.coverage(document, index - 1, plan)
            yield title, plan


def table(plan: Blueprint) -> str:
    """Layers with their connections, shapes, parameters, work and memory, and the sums below."""
    from ..netdef.memory import blob_bytes, parameter_bytes
    from ..netdef.summary import summarize

    rows = [("layer", "type", "bottoms", "tops", "shape", "params", "MACs", "memory")]
    summaries = summarize(plan)
    for each in summaries:
        shapes = ", ".join("x".join(map(str, shape)) or "1" for shape in each.top_shapes)
        rows.append(
            (
                each.name,
                each.type,
                ", ".join(each.bottoms),
                ", ".join(each.tops),
                shapes,
                f"{each.parameters:,}",
                amount(each.macs),
                f"{amount(each.bytes)}B",
            )
        )
    parameters = sum(each.parameters for each in summaries)
    macs = sum(each.macs for each in summaries)
    foot = (
        f"{len(summaries)} layers, {parameters:,} parameters ({amount(parameter_bytes(plan))}B), "
        f"{amount(macs)}MACs a forward pass, {amount(blob_bytes(plan))}B of blobs; "
        f"outputs: {', '.join(plan.outputs) or 'none'}"
    )
    return f"{aligned(rows, right=(5, 6, 7))}\n{foot}"


def aligned(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """``rows`` in columns, the columns of ``right`` flush right, a rule under the first row."""
    right = set(right)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def amount(value: float) -> str:
    """``value`` with three digits and a decimal prefix: 61.1 M."""
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} T"
