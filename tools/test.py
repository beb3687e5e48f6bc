"""Test a trained net: run batches in the TEST phase and print the means of its outputs.

example:
  cortado test --model net.prototxt --weights net_iter_1000.caffemodel --iterations 100
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import nets
from .flags import at_least, switch

if TYPE_CHECKING:
    from ..netdef import Net
    from ..solvers.events import Listener, Output

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    nets.configure_net(parser)
    switch(parser, "json", "print events as JSON objects, one a line")
    parser.add_argument("--iterations", type=at_least(1), default=50, help="batches (default 50)")


def run(args: argparse.Namespace) -> int:
    if not args.weights:
        raise ConfigError("cortado test: --weights FILE is needed")
    with nets.opened(args, "TEST") as net:
        net.fold()
        if args.json:
            from .output import json_lines

            evaluate(net, args.iterations, json_lines.write)
        else:
            evaluate(net, args.iterations)
    return 0


def evaluate(net: Net, iterations: int, emit: Listener | None = None) -> list[Output]:
    """Run ``iterations`` batches, log each batch's outputs and then the means, which it returns.

    ``emit`` is told of each batch and of the result, as in a run's tests.
    """
    import torch

    from ..solvers import events
    from ..solvers.hooks.display import scalars
    from .output.log import number, weighted

    logger.info(f"Running for {iterations} iterations.")
    sums: dict[str, torch.Tensor] = {}
    total = torch.zeros(())
    with torch.no_grad():
        for batch in range(iterations):
            outputs, loss = net.run(net.next_batch())
            for output in scalars(outputs, net.loss_weights):
                logger.info(f"Batch {batch}, {output.blob} = {number(output.value)}")
            for name, value in outputs.items():
                sums[name] = sums[name] + value if name in sums else value
            total = total.to(loss.device) + loss
            if emit is not None:
                emit(events.TestProgress(0, 0, batch + 1, iterations))
    logger.info(f"Loss: {number(float(total) / iterations)}")
    means = {name: value / iterations for name, value in sums.items()}
    results = list(scalars(means, net.loss_weights))
    if emit is not None:
        emit(events.TestFinished(0, 0, tuple(results), float(total) / iterations))
    for result in results:
        logger.info(weighted(result))
    return results
