"""What the commands that rewrite old files in the current format have in common."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..proto.caffe_pb2 import NetParameter

#: Caffe's exit codes of these commands; a file that cannot be read is a ConfigError, whose code is
#: Caffe's 2 as well.
INCOMPLETE = 1

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="IN OUT", help="old file, and the one to write")


def two_paths(args: argparse.Namespace, command: str) -> tuple[str, str] | None:
    """IN and OUT; None, with the usage in the log, unless there are exactly two."""
    if len(args.paths) == 2:
        source, target = args.paths
        return source, target
    logger.error("Usage: cortado %s IN OUT", command)
    return None


def upgrade_net_file(
    args: argparse.Namespace,
    command: str,
    kind: str,
    read: Callable[[str], NetParameter],
    write: Callable[[str, NetParameter], None],
) -> int:
    """Read a net, upgrade and write it; the exit code. OUT is written even if nothing changed."""
    from ..proto.errors import ConfigError
    from ..proto.upgrade import upgrade_net

    paths = two_paths(args, command)
    if paths is None:
        return INCOMPLETE
    source, target = paths
    upgrade = upgrade_net(read(source))
    if upgrade.refusals:
        raise ConfigError("\n".join(f"{source}: {note.message}" for note in upgrade.refusals))
    if not upgrade.steps:
        logger.error("File already in latest proto format: %s", source)
    for step in upgrade.steps:
        logger.info("Upgraded %s of %s", step, source)
    for note in upgrade.losses:
        logger.error("%s", note.message)
    if upgrade.losses:
        logger.error("Encountered error(s) while upgrading prototxt; see details above.")
    write(target, upgrade.net)
    logger.info("Wrote upgraded NetParameter %s proto to %s", kind, target)
    return INCOMPLETE if upgrade.losses else 0
