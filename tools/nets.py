"""What the subcommands that run one net have in common: their flags, and how the net is opened."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from . import device, running
from .flags import comma_list
from .variables import configure_set, settings

if TYPE_CHECKING:
    from ..netdef import Net

logger = logging.getLogger(__name__)


def configure_net(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="net prototxt (required)")
    configure_set(parser)
    parser.add_argument("--weights", default="", help="one file of weights")
    parser.add_argument("--gpu", default="", help="GPU id; the CPU without it")
    parser.add_argument("--level", type=int, default=0, help="level of the net's state")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
    running.add_flags(parser)


@contextmanager
def opened(args: argparse.Namespace, phase: str) -> Iterator[Net]:
    """The net that ``args`` describe, on the device they choose; its sources are closed after."""
    if not args.model:
        raise ConfigError("--model FILE is needed: the prototxt of a net")
    from ..netdef import Net
    from ..netdef.description import describe
    from ..netdef.execution import prepared_process
    from ..proto.files import read_net
    from .classification.contradictions import report_data_layers
    from .output.log import net_lines

    where = device.first(args.gpu)
    logger.info(device.announcement(where))
    net = Net(
        read_net(args.model, settings(args)),
        phase,
        level=args.level,
        stages=comma_list(args.stage),
        # As a path, because a comma belongs to the file's name here.
        weights=Path(args.weights) if args.weights else None,
        device=where,
        execution=running.execution(args),
    )
    report_data_layers(net)
    for level, line in net_lines(describe(net)):
        logger.log(level, "%s", line)
    try:
        with prepared_process(where, args.threads or 0):
            yield net
    finally:
        net.close()
