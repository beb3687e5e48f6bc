"""Train a net as its solver prototxt says, and write snapshots.

--weights starts from trained weights (a comma list is applied in order) and takes the place of the
solver's own; --snapshot continues a run. Ctrl-C saves and stops; --sigint_effect changes that.

Fine-tuning: --head LAYER with --num_classes N gives the net another last layer, --fresh PATTERNS lets
further layers start anew, and --freeze PATTERNS keeps layers as the weights have them,.

examples:
  cortado train --solver examples/digits/solver.prototxt --gpu 0
  cortado train --solver resnet18/solver.prototxt --weights zoo:resnet18 --head fc --num_classes 5
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import device
from .flags import at_least, comma_list, one_of

if TYPE_CHECKING:
    from ..solvers import Solver
    from ..solvers.requirements import SolverDocument

EFFECTS = ("stop", "snapshot", "none")

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", default="", help="solver prototxt (required)")
    parser.add_argument("--weights", default="", help="weights to start from, a comma list")
    parser.add_argument("--head", default="", help="layer that starts anew although weights fit it")
    parser.add_argument("--num_classes", type=at_least(1), help="outputs of the layer --head names")
    parser.add_argument("--fresh", default="", help="patterns of layers that start anew")
    parser.add_argument("--freeze", default="", help="patterns of layers that do not learn")
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
    from .output.log import write
    from .output.progress import live

    variables = parse_settings(each for each in args.set if not overrides.is_field(each))
    document = read_solver(args.solver, variables)
    document = overrides.apply(document, [each for each in args.set if overrides.is_field(each)])
    document = fine_tuned(document, args)
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
                fresh=fresh_layers(args) if weights != [] else [],
                listeners=[write],
                sigint=args.sigint_effect or "stop",
                sighup=args.sighup_effect,
            )
        )
        solver.listeners += stack.enter_context(live(images_per_iteration(solver)))
        logger.info("Starting Optimization")
        if args.snapshot:
            logger.info(f"Resuming from {args.snapshot}")
        outcome = solver.solve(args.snapshot or None)
        logger.info("Optimization Done.")
    if outcome.signal is None or (outcome.signal.name == "SIGINT" and args.sigint_effect):
        return 0
    return 128 + outcome.signal


def fine_tuned(document: SolverDocument, args: argparse.Namespace) -> SolverDocument:
    """The solver with the head and the frozen layers that the flags ask for."""
    from ..solvers import fine_tuning

    if args.num_classes is not None:
        if not args.head:
            raise ConfigError("cortado train: --num_classes needs --head LAYER")
        document = fine_tuning.with_head(document, args.head, args.num_classes)
    if args.freeze:
        document = fine_tuning.frozen(document, comma_list(args.freeze))
    return document


def fresh_layers(args: argparse.Namespace) -> list[str]:
    """The patterns of layers that start anew."""
    return comma_list(args.fresh) + ([args.head] if args.head else [])


def images_per_iteration(solver: Solver) -> int:
    """How many images one iteration takes from the first data source; 0 if there is none."""
    shapes = [shape for step in solver.net.sources for shape in step.top_shapes if shape]
    return shapes[0][0] * solver.parameters.iter_size if shapes else 0
