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
from .flags import at_least

if TYPE_CHECKING:
    from ..netdef import Net
    from ..solvers.events import Output

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    nets.configure_net(parser)
    parser.add_argument("--iterations", type=at_least(1), default=50, help="batches (default 50)")


def run(args: argparse.Namespace) -> int:
    if not args.weights:
        raise ConfigError("cortado test: --weights FILE is needed")
    with nets.opened(args, "TEST") as net:
        evaluate(net, args.iterations)
    return 0


def evaluate(net: Net, iterations: int) -> list[Output]:
    """Run ``iterations`` batches, log each batch's outputs and then the means, which it returns."""
    import torch

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
    logger.info(f"Loss: {number(float(total) / iterations)}")
    means = {name: value / iterations for name, value in sums.items()}
    results = list(scalars(means, net.loss_weights))
    for result in results:
        logger.info(weighted(result))
    return results
