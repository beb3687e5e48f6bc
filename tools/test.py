"""Test a trained net: run batches in the TEST phase and print the means of its outputs.

example:
  cortado test --model net.prototxt --weights net_iter_1000.caffemodel --iterations 100
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import device
from .flags import at_least, comma_list

if TYPE_CHECKING:
    from ..netdef import Net
    from ..solvers.events import Output
    from .output.log import Log


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="net prototxt (required)")
    parser.add_argument("--weights", default="", help="one file of weights (required)")
    parser.add_argument("--iterations", type=at_least(1), default=50, help="batches (default 50)")
    parser.add_argument("--gpu", default="", help="GPU id; the CPU without it")
    parser.add_argument("--level", type=int, default=0, help="level of the net's state")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
    parser.add_argument("--log_file", default="", help="append the log lines to this file too")


def run(args: argparse.Namespace) -> int:
    for flag in ("model", "weights"):
        if not getattr(args, flag):
            raise ConfigError(f"cortado test: --{flag} FILE is needed to test")
    from ..netdef import Net
    from .output.log import Log

    with Log(args.log_file or None) as log:
        where = device.first(args.gpu)
        log.info(device.announcement(where))
        net = Net(
            args.model,
            "TEST",
            level=args.level,
            stages=comma_list(args.stage),
            weights=Path(args.weights),
            device=where,
        )
        try:
            evaluate(net, args.iterations, log)
        finally:
            net.close()
    return 0


def evaluate(net: Net, iterations: int, log: Log) -> list[Output]:
    """Run ``iterations`` batches, log each batch's outputs and then the means, which it returns."""
    import torch

    from ..solvers.hooks.display import scalars
    from .output.log import number, weighted

    log.info(f"Running for {iterations} iterations.")
    sums: dict[str, torch.Tensor] = {}
    total = torch.zeros(())
    with torch.no_grad():
        for batch in range(iterations):
            outputs, loss = net.run(net.next_batch())
            for output in scalars(outputs, net.loss_weights):
                log.info(f"Batch {batch}, {output.blob} = {number(output.value)}")
            for name, value in outputs.items():
                sums[name] = sums[name] + value if name in sums else value
            total = total.to(loss.device) + loss
    log.info(f"Loss: {number(float(total) / iterations)}")
    means = {name: value / iterations for name, value in sums.items()}
    results = list(scalars(means, net.loss_weights))
    for result in results:
        log.info(weighted(result))
    return results
