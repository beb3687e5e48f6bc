"""Train a net as its solver prototxt says, and write snapshots.

--weights starts from trained weights (a comma list is applied in order) and takes the place of the
solver's own; --snapshot continues a run. Ctrl-C saves and stops; --sigint_effect changes that.

example:
  cortado train --solver examples/digits/solver.prototxt --gpu 0
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import device, running
from .flags import comma_list, one_of, switch

if TYPE_CHECKING:
    from ..solvers import Solver
    from .output.progress import Facts

EFFECTS = ("stop", "snapshot", "none")

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", default="", help="solver prototxt (required)")
    parser.add_argument("--weights", default="", help="weights to start from, a comma list")
    parser.add_argument("--snapshot", default="", help=".solverstate to continue from")
    parser.add_argument("--gpu", default="", help="GPU id; wins over the solver's solver_mode")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of a variable of the files (width=32) or of a field (base_lr=0.1, "
        "net.conv1.num_output=32); may be repeated",
    )
    parser.add_argument("--level", type=int, default=0, help="level of the train net's state")
    parser.add_argument("--stage", default="", help="stages of the train net, a comma list")
    running.add_flags(parser)
    switch(parser, "json", "print every event of the run as a JSON object, one a line")
    effects = ", ".join(EFFECTS)
    parser.add_argument(
        "--sigint_effect",
        type=one_of(*EFFECTS),
        help=f"what Ctrl-C does: {effects} (default stop; given as stop, the exit code is 0)",
    )
    parser.add_argument(
        "--sighup_effect",
        type=one_of(*EFFECTS),
        default="snapshot",
        help=f"what SIGHUP does: {effects} (default snapshot)",
    )


def run(args: argparse.Namespace) -> int:
    if not args.solver:
        raise ConfigError("cortado train: --solver FILE is needed to train")
    if args.snapshot and args.weights:
        raise ConfigError(
            "cortado train: give --snapshot to continue a run or --weights to start a new one "
            "from trained weights, not both"
        )
    from ..proto.blocks import parse_settings
    from ..proto.files import read_solver
    from ..solvers import Solver, overrides
    from ..solvers.solver import choose_device
    from .output import json_lines
    from .output.log import write
    from .output.progress import live

    variables = parse_settings(each for each in args.set if not overrides.is_field(each))
    document = read_solver(args.solver, variables)
    fields = [each for each in args.set if overrides.is_field(each)]
    document = overrides.apply(document, [*fields, *running.assignments(args)])
    where = choose_device(document, device.for_training(args.gpu))
    logger.info(device.announcement(str(where)))
    # A snapshot holds the weights, so those that the solver names must not be loaded over them.
    weights = [] if args.snapshot else comma_list(args.weights) or None
    with ExitStack() as stack:
        solver = stack.enter_context(
            Solver(
                document,
                device=where,
                level=args.level,
                stages=comma_list(args.stage),
                weights=weights,
                listeners=[write, *([json_lines.write] if args.json else [])],
                sigint=args.sigint_effect or "stop",
                sighup=args.sighup_effect,
            )
        )
        solver.listeners += stack.enter_context(live(facts(solver), args.quiet))
        logger.info("Starting Optimization")
        if args.snapshot:
            logger.info(f"Resuming from {args.snapshot}")
        outcome = solver.solve(args.snapshot or None)
        logger.info("Optimization Done.")
    if outcome.signal is None or (outcome.signal.name == "SIGINT" and args.sigint_effect):
        return 0
    return 128 + outcome.signal


def facts(solver: Solver) -> Facts:
    """What the live display must know beside the events."""
    from .output.progress import Facts

    sources = [step for step in solver.net.sources if step.top_shapes and step.top_shapes[0]]
    if not sources:
        return Facts(device=str(solver.device))
    images = sources[0].top_shapes[0][0] * solver.parameters.iter_size
    return Facts(images, sources[0].source.records or 0, str(solver.device))
