"""Time a net: whole passes as they run in use, and each layer by itself.

One warm-up pass comes first. The averages are those of whole passes: in phase TRAIN (the default)
forward and backward with what is fused; in TEST forward alone, folded, without gradients. The table
of layers is from passes that run every layer of the prototxt by itself, in both directions.

example:
  cortado time --model examples/mnist/lenet_train_test.prototxt --iterations 20
  cortado time --model deploy.prototxt --phase TEST --precision BF16 --noper_layer
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from . import nets
from .flags import at_least, one_of, switch

if TYPE_CHECKING:
    from .output.stopwatch import LayerTimes, PassTimes

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    nets.configure_net(parser)
    parser.add_argument("--iterations", type=at_least(1), default=50, help="loops (default 50)")
    parser.add_argument(
        "--phase", type=one_of("train", "test"), default="train", help="TRAIN (default) or TEST"
    )
    switch(parser, "per_layer", "time every layer by itself as well (default)", default=True)


def run(args: argparse.Namespace) -> int:
    from .output.stopwatch import measure, whole

    phase = args.phase.upper()
    with nets.opened(args, phase) as net:
        if phase == "TEST":
            net.fold()
        logger.info("Performing Forward")
        logger.info(f"Initial loss: {float(whole(net).loss):g}")
        logger.info("*** Benchmark begins ***")
        logger.info(f"Testing for {args.iterations} iterations.")
        passes = []
        for loop in range(1, args.iterations + 1):
            passes.append(whole(net))
            logger.info(f"Iteration: {loop} forward-backward time: {passes[-1].total:g} ms.")
        if args.per_layer:
            measure(net)
            _layers([measure(net) for _ in range(args.iterations)])
    _summary(passes)
    return 0


def _layers(passes: list[LayerTimes]) -> None:
    logger.info("Average time per layer: ")
    for name in passes[0].forward:
        for direction in ("forward", "backward"):
            mean = sum(getattr(each, direction)[name] for each in passes) / len(passes)
            logger.info(f"{name:>10}\t{direction}: {mean:g} ms.")


def _summary(passes: list[PassTimes]) -> None:
    count = len(passes)
    forward, backward = (sum(getattr(p, way) for p in passes) for way in ("forward", "backward"))
    logger.info(f"Average Forward pass: {forward / count:g} ms.")
    logger.info(f"Average Backward pass: {backward / count:g} ms.")
    logger.info(f"Average Forward-Backward: {(forward + backward) / count:g} ms.")
    logger.info(f"Total Time: {forward + backward:g} ms.")
    logger.info("*** Benchmark ends ***")
