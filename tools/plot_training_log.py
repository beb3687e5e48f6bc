"""Plot the course of one or several runs from their logs.

CHART is a number: 0 test accuracy, 2 test loss, 4 learning rate, 6 training loss, each against
iterations; 1, 3, 5 and 7 the same against seconds.

example:
  cortado plot_training_log 6 loss.png train.log
"""

from __future__ import annotations

import argparse

from ..proto.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("chart", metavar="CHART", help="0 to 7")
    parser.add_argument("picture", metavar="OUT.png", help="image file to write")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="logs of cortado train")


def run(args: argparse.Namespace) -> int:
    from .output.curves import CHARTS, plot, read_log

    if not args.chart.isdigit() or int(args.chart) >= len(CHARTS):
        raise ConfigError(f"CHART must be a number from 0 to {len(CHARTS) - 1}, got {args.chart!r}")
    plot(CHARTS[int(args.chart)], [read_log(log) for log in args.logs], args.picture)
    print(f"Wrote {args.picture}")
    return 0
