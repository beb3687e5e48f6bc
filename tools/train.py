"""Train a net as its solver prototxt says, and write snapshots.

--set changes variables of the files, or fields of the solver and its net, for this run. --weights
starts from trained weights (a comma list is applied in order) and takes the place of the solver's
own. --snapshot continues a run; --snapshot=auto the newest complete snapshot, if there is any.
Ctrl-C saves and stops; --sigint_effect changes that.

Fine-tuning: --head LAYER with --num_classes N gives the net another last layer, --fresh PATTERNS
lets further layers start anew, and --freeze PATTERNS keeps layers as the weights have them.
--cache_features runs the frozen layers at the start of the net only once for each record.

examples:
  cortado train --solver examples/digits/solver.prototxt --set base_lr=0.02
  cortado train --solver resnet18/solver.prototxt --weights zoo:resnet18 --head fc --num_classes 5
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import device, running
from .flags import at_least, comma_list, one_of, switch
from .variables import configure_set, read_solver_with

if TYPE_CHECKING:
    from ..solvers import Solver
    from ..solvers.requirements import SolverDocument
    from .output.live import Facts

#: --snapshot=auto continues from the newest complete snapshot.
AUTO = "auto"
EFFECTS = ("stop", "snapshot", "none")

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", default="", help="solver prototxt (required)")
    parser.add_argument("--weights", default="", help="weights to start from, a comma list")
    parser.add_argument("--head", default="", help="layer that starts anew although weights fit it")
    parser.add_argument("--num_classes", type=at_least(1), help="outputs of the layer --head names")
    parser.add_argument("--fresh", default="", help="patterns of layers that start anew")
    parser.add_argument("--freeze", default="", help="patterns of layers that do not learn")
    switch(parser, "cache_features", "run frozen layers once for each record and keep their tops")
    parser.add_argument("--feature_cache", default="", help="folder for what is kept")
    parser.add_argument("--snapshot", default="", help=".solverstate to continue from, or auto")
    switch(parser, "accept_changes", "continue although net or solver were edited since")
    parser.add_argument("--gpu", default="", help="GPU id; wins over the solver's solver_mode")
    configure_set(parser, fields=True)
    parser.add_argument("--level", type=int, default=0, help="level of the train net's state")
    parser.add_argument("--stage", default="", help="stages of the train net, a comma list")
    parser.add_argument("--tensorboard", default="", help="folder for TensorBoard's event files")
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
    if args.snapshot and args.snapshot != AUTO and args.weights:
        raise ConfigError(
            "cortado train: give --snapshot to continue a run or --weights to start a new one "
            "from trained weights, not both"
        )
    from ..solvers import Solver
    from ..solvers.solver import choose_device
    from .output import json_lines
    from .output.live import live
    from .output.log import write

    assignments = [*args.set, *running.assignments(args), *kept_features(args)]
    document = read_solver_with(args.solver, assignments)
    resume = find_snapshot(document, args.snapshot)
    document = fine_tuned(document, args)
    where = choose_device(document, device.for_training(args.gpu))
    logger.info(device.announcement(str(where)))
    # A snapshot holds the weights, so those that the solver names must not be loaded over them.
    weights = [] if resume else comma_list(args.weights) or None
    with ExitStack() as stack:
        solver = stack.enter_context(
            Solver(
                document,
                device=where,
                level=args.level,
                stages=comma_list(args.stage),
                weights=weights,
                listeners=[write, *([json_lines.write] if args.json else [])],
                fresh=fresh_layers(args) if weights != [] else [],
                sigint=args.sigint_effect or "stop",
                sighup=args.sighup_effect,
            )
        )
        if args.tensorboard:
            board(solver, args.tensorboard)
        solver.listeners += stack.enter_context(live(facts(solver), args.quiet))
        logger.info("Starting Optimization")
        if resume:
            logger.info(f"Resuming from {resume}")
        outcome = solver.solve(resume, accept_changes=args.accept_changes)
        logger.info("Optimization Done.")
    if outcome.signal is None or (outcome.signal.name == "SIGINT" and args.sigint_effect):
        return 0
    return 128 + outcome.signal


def find_snapshot(document: SolverDocument, flag: str) -> str | None:
    """What --snapshot asks to continue from; None to start afresh."""
    if flag != AUTO:
        return flag or None
    from ..solvers import snapshots

    prefix = document.message.snapshot_prefix
    if not prefix:
        raise ConfigError("cortado train: --snapshot=auto needs a snapshot_prefix in the solver")
    found = snapshots.latest(prefix, logger.warning)
    if found is None:
        logger.info(f"No complete snapshot of {prefix}: starting afresh")
    return str(found) if found else None


def board(solver: Solver, folder: str) -> None:
    """Write event files to ``folder``, in place of the solver's own if it names one."""
    from ..proto.caffe_pb2 import TensorBoardParameter
    from ..solvers.hooks.tensorboard import TensorBoard

    message = TensorBoardParameter()
    message.CopyFrom(solver.parameters.tensorboard)
    message.folder = folder
    solver.hooks = [hook for hook in solver.hooks if not isinstance(hook, TensorBoard)]
    solver.hooks.append(TensorBoard(message))


def facts(solver: Solver) -> Facts:
    """What the live display must know beside the events."""
    from .output.live import Facts

    sources = [step for step in solver.net.sources if step.top_shapes and step.top_shapes[0]]
    if not sources:
        return Facts(device=str(solver.device))
    images = sources[0].top_shapes[0][0] * solver.parameters.iter_size
    return Facts(images, sources[0].source.records or 0, str(solver.device))


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


def kept_features(args: argparse.Namespace) -> list[str]:
    """The flags of feature caching, as assignments to fields of a solver; a folder turns it on."""
    folder = [f"feature_cache={args.feature_cache}"] if args.feature_cache else []
    return ["cache_features=true", *folder] if args.cache_features or folder else []


def fresh_layers(args: argparse.Namespace) -> list[str]:
    """The patterns of layers that start anew."""
    return comma_list(args.fresh) + ([args.head] if args.head else [])
