"""Find a learning rate: train while the rate grows exponentially, and look at the loss.

The solver's own rule and net are used, nothing is saved. The suggestion is where the smoothed loss
falls fastest; the loss starts to grow again at about ten times the largest useful rate.

example:
  cortado lr_finder examples/digits/solver.prototxt --out range.png
"""

from __future__ import annotations

import argparse
import logging

from ..proto.errors import ConfigError
from . import device
from .flags import comma_list
from .variables import configure_set, read_solver_with

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("solver", metavar="SOLVER", help="solver prototxt")
    parser.add_argument("--out", default="lr_finder.png", help="picture to write (.png, .svg)")
    parser.add_argument("--low", type=float, default=1e-6, help="first rate (1e-6)")
    parser.add_argument("--high", type=float, default=1.0, help="last rate (1)")
    parser.add_argument("--iterations", type=int, default=100, help="how many rates (100)")
    parser.add_argument("--weights", default="", help="weights to start from, a comma list")
    parser.add_argument("--gpu", default="", help="GPU id; wins over the solver's solver_mode")
    configure_set(parser, fields=True)


def run(args: argparse.Namespace) -> int:
    if not 0 < args.low < args.high or args.iterations < 2:
        raise ConfigError(
            "cortado lr_finder: --low must be greater than 0 and below --high, --iterations at "
            f"least 2, got {args.low:g}, {args.high:g} and {args.iterations}"
        )
    from ..solvers import Solver, range_test
    from ..solvers.solver import choose_device
    from .output import curves

    document = read_solver_with(args.solver, args.set)
    where = choose_device(document, device.for_training(args.gpu))
    logger.info(device.announcement(str(where)))
    ramp = range_test.ramp(document, args.low, args.high, args.iterations)
    weights = comma_list(args.weights) or None
    with Solver(ramp, device=where, weights=weights) as solver:
        found = range_test.run(solver, args.iterations)
    curves.range_test(found.rates, found.losses, found.smooth, found.suggestion, args.out)
    if found.suggestion is None:
        print("The loss never fell; try other values of --low and --high")
    else:
        print(f"The loss falls fastest at a learning rate of {found.suggestion:.2g}")
        print(f"and is smallest at {found.best:.2g}, after which it grows")
    print(f"Wrote {args.out}")
    return 0
