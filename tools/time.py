"""Time a net: forward and backward, layer by layer and in all.

One warm-up pass comes first. Without --phase the net is built for TRAIN; both passes always run.

example:
  cortado time --model examples/mnist/lenet_train_test.prototxt --iterations 20
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from . import nets
from .flags import at_least, one_of

if TYPE_CHECKING:
    from .output.stopwatch import LayerTimes

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    nets.configure_net(parser)
    parser.add_argument("--iterations", type=at_least(1), default=50, help="loops (default 50)")
    parser.add_argument(
        "--phase", type=one_of("train", "test"), default="train", help="TRAIN (default) or TEST"
    )


def run(args: argparse.Namespace) -> int:
    from .output.stopwatch import measure

    with nets.opened(args, args.phase.upper()) as net:
        logger.info("Performing Forward")
        logger.info(f"Initial loss: {float(measure(net).loss):g}")
        logger.info("*** Benchmark begins ***")
        logger.info(f"Testing for {args.iterations} iterations.")
        passes = []
        for loop in range(1, args.iterations + 1):
            passes.append(measure(net))
            logger.info(f"Iteration: {loop} forward-backward time: {passes[-1].total:g} ms.")
    _summary(passes)
    return 0


def _summary(passes: list[LayerTimes]) -> None:
    count = len(passes)
    logger.info("Average time per layer: ")
    for name in passes[0].forward:
        for direction in ("forward", "backward"):
            mean = sum(getattr(each, direction)[name] for each in passes) / count
            logger.info(f"{name:>10}\t{direction}: {mean:g} ms.")
    forward = sum(sum(each.forward.values()) for each in passes)
    backward = sum(sum(each.backward.values()) for each in passes)
    logger.info(f"Average Forward pass: {forward / count:g} ms.")
    logger.info(f"Average Backward pass: {backward / count:g} ms.")
    logger.info(f"Average Forward-Backward: {(forward + backward) / count:g} ms.")
    logger.info(f"Total Time: {forward + backward:g} ms.")
    logger.info("*** Benchmark ends ***")
