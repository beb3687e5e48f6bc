"""Write the seconds since a run began for every line of its log that names an iteration.

example:
  cortado extract_seconds train.log seconds.txt
"""

from __future__ import annotations

import argparse

from ..proto.errors import DataError, ResourceError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="IN", help="log of cortado train")
    parser.add_argument("target", metavar="OUT", help="text file to write, one number a line")


def run(args: argparse.Namespace) -> int:
    from .output.curves import read_lines, timed

    seconds = [now for now, line in timed(read_lines(args.log)) if "Iteration" in line]
    if not seconds:
        raise DataError(f"log {args.log!r}: no line of a training run in it")
    try:
        with open(args.target, "w", encoding="utf-8") as file:
            file.writelines(f"{now:f}\n" for now in seconds)
    except OSError as error:
        raise ResourceError(f"{args.target}: {error.strerror}") from None
    return 0
