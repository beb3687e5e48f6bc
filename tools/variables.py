"""The flag --set of subcommands that read prototxt files: values for variables and fields."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..proto.blocks import Settings
    from ..solvers.requirements import SolverDocument

logger = logging.getLogger(__name__)

_VARIABLES = "value of a variable of the prototxt, such as width=32; may be repeated"
_FIELDS = (
    "value of a variable of the files (width=32) or of a field (base_lr=0.1, "
    "net.conv1.num_output=32); may be repeated"
)


def configure_set(parser: argparse.ArgumentParser, fields: bool = False) -> None:
    """Add --set; with ``fields`` it changes fields of a solver and its net as well."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=_FIELDS if fields else _VARIABLES,
    )


def settings(args: argparse.Namespace) -> Settings:
    """The values given with --set."""
    from ..proto.blocks import parse_settings

    return parse_settings(args.set)


def read_solver_with(path: str, assignments: Sequence[str]) -> SolverDocument:
    """The solver in ``path`` with the variables and fields of --set, each of them logged.

    ConfigError for a field or value that does not fit the schema.
    """
    from ..proto.blocks import parse_settings
    from ..proto.files import read_solver
    from ..solvers import overrides

    variables = parse_settings(each for each in assignments if not overrides.is_field(each))
    document = read_solver(path, variables)
    document = overrides.apply(document, [each for each in assignments if overrides.is_field(each)])
    for assignment in assignments:
        logger.info(f"Set {assignment}")
    return document
