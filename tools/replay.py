"""Show again, layer by layer, the iteration that stopped a run with NaN or Inf.

BUNDLE is the folder <snapshot_prefix>_not_finite_iter_<iteration> that the run left: net, weights
before the step and batch. Each top is listed with the range of its values and of its gradient.

example:
  cortado replay snapshots/digits_not_finite_iter_120
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import device

if TYPE_CHECKING:
    from ..solvers.diagnosis import Row


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that the run left")
    parser.add_argument("--gpu", default="", help="GPU id (default: the CPU)")


def run(args: argparse.Namespace) -> int:
    from ..solvers import diagnosis

    print(diagnosis.read_message(args.bundle))
    found = diagnosis.replay(args.bundle, device.first(args.gpu))
    print(table(found.rows))
    print(f"loss {found.loss:g}; {found.first or 'everything is finite this time'}")
    return 0


def table(rows: list[Row]) -> str:
    """A line for each top; ``<--`` marks those that are not finite."""
    from .check import aligned

    lines = [("layer", "type", "top", "shape", "values", "gradient", "")]
    for row in rows:
        bad = row.values.bad or (row.gradient is not None and row.gradient.bad)
        lines.append(
            (
                row.layer,
                row.type,
                row.top,
                "x".join(map(str, row.shape)) or "1",
                str(row.values),
                str(row.gradient) if row.gradient is not None else "-",
                "<--" if bad else "",
            )
        )
    return aligned(lines)
