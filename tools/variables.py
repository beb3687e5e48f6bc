"""The flag --set of subcommands that read prototxt files: values for the files' variables."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..proto.blocks import Settings


def configure_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of a variable of the prototxt, such as width=32; may be repeated",
    )


def settings(args: argparse.Namespace) -> Settings:
    """The values given with --set."""
    from ..proto.blocks import parse_settings

    return parse_settings(args.set)
