"""Rewrite the prototxt of an old solver in the current format: ``solver_type`` becomes ``type``.

OUT is written even if IN is up to date. The exit code is 2 if IN cannot be read.

example:
  cortado upgrade_solver_proto_text old_solver.prototxt new_solver.prototxt
"""

from __future__ import annotations

import argparse
import logging

from ..proto.errors import ConfigError
from .upgrading import INCOMPLETE, configure, two_paths

__all__ = ["configure", "run"]

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    from ..proto.caffe_pb2 import SolverParameter
    from ..proto.files import read_prototxt, write_text
    from ..proto.upgrade import upgrade_solver

    paths = two_paths(args, "upgrade_solver_proto_text")
    if paths is None:
        return INCOMPLETE
    source, target = paths
    old = read_prototxt(source, SolverParameter).message
    if not old.HasField("solver_type"):
        logger.error("File already in latest proto format: %s", source)
    try:
        write_text(target, upgrade_solver(old))
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
    logger.info("Wrote upgraded SolverParameter text proto to %s", target)
    return 0
