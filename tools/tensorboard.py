"""Show runs in TensorBoard: starts its server for a folder of event files.

The files are written by cortado train --tensorboard DIR. What follows the folder goes to
TensorBoard as it is.

example:
  cortado tensorboard runs/ --port 6006
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

from ..proto.errors import ConfigError, DataError
from .flags import at_least

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="RUN", help="folder with event files, or a folder of such"
    )
    parser.add_argument(
        "--port", type=at_least(0), default=6006, help="default 6006; 0: a free one"
    )
    parser.add_argument("--host", default="localhost", help="address to serve at (localhost)")


def run(args: argparse.Namespace) -> int:
    if not any(Path(args.folder).rglob("*tfevents*")):
        raise DataError(
            f"{args.folder}: there are no event files in it (cortado train --tensorboard writes "
            "them)"
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("TensorBoard is not installed: pip install 'cortado[tensorboard]'")
    return subprocess.run(command(args), check=False).returncode  # noqa: S603


def command(args: argparse.Namespace) -> list[str]:
    """The command line that starts the server."""
    start = [sys.executable, "-m", "tensorboard.main", "--logdir", args.folder]
    return [*start, "--host", args.host, "--port", str(args.port)]
