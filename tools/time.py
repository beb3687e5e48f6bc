"""Time a net: forward and backward, layer by layer and in all.

One warm-up pass comes first. Without --phase the net is built for TRAIN; both passes always run.

example:
  cortado time --model examples/mnist/lenet_train_test.prototxt --iterations 20
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import device
from .flags import at_least, comma_list, one_of

if TYPE_CHECKING:
    from .output.log import Log
    from .output.stopwatch import LayerTimes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="net prototxt (required)")
    parser.add_argument("--weights", default="", help="weights to load")
    parser.add_argument("--iterations", type=at_least(1), default=50, help="loops (default 50)")
    parser.add_argument("--phase", type=one_of("train", "test"), default="train")
    parser.add_argument("--gpu", default="", help="GPU id; the CPU without it")
    parser.add_argument("--level", type=int, default=0, help="level of the net's state")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
    parser.add_argument("--log_file", default="", help="append the log lines to this file too")


def run(args: argparse.Namespace) -> int:
    if not args.model:
        raise ConfigError("cortado time: --model FILE is needed to time a net")
    from ..netdef import Net
    from .output.log import Log
    from .output.stopwatch import measure

    with Log(args.log_file or None) as log:
        where = device.first(args.gpu)
        log.info(device.announcement(where))
        net = Net(
            args.model,
            args.phase.upper(),
            level=args.level,
            stages=comma_list(args.stage),
            weights=args.weights or None,
            device=where,
        )
        try:
            log.info("Performing Forward")
            log.info(f"Initial loss: {float(measure(net).loss):g}")
            log.info("*** Benchmark begins ***")
            log.info(f"Testing for {args.iterations} iterations.")
            passes = []
            for loop in range(1, args.iterations + 1):
                passes.append(measure(net))
                log.info(f"Iteration: {loop} forward-backward time: {passes[-1].total:g} ms.")
        finally:
            net.close()
        _summary(passes, log)
    return 0


def _summary(passes: list[LayerTimes], log: Log) -> None:
    count = len(passes)
    log.info("Average time per layer: ")
    for name in passes[0].forward:
        for direction in ("forward", "backward"):
            mean = sum(getattr(each, direction)[name] for each in passes) / count
            log.info(f"{name:>10}\t{direction}: {mean:g} ms.")
    forward = sum(sum(each.forward.values()) for each in passes)
    backward = sum(sum(each.backward.values()) for each in passes)
    log.info(f"Average Forward pass: {forward / count:g} ms.")
    log.info(f"Average Backward pass: {backward / count:g} ms.")
    log.info(f"Average Forward-Backward: {(forward + backward) / count:g} ms.")
    log.info(f"Total Time: {forward + backward:g} ms.")
    log.info("*** Benchmark ends ***")
