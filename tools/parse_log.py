"""Turn a training log into two tables, LOG.train and LOG.test, as CSV.

Columns are NumIters, Seconds (since the run began), LearningRate and one for each output. A table
that would be empty is not written.

example:
  cortado parse_log train.log tables/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..proto.errors import ConfigError, ResourceError
from .flags import switch


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="LOG", help="log of cortado train")
    parser.add_argument("folder", metavar="OUTDIR", help="folder for the tables")
    switch(parser, "verbose", "say which files were written")
    parser.add_argument("--delimiter", default=",", help="between columns (default ,)")


def run(args: argparse.Namespace) -> int:
    from .output.curves import read_records
    from .output.rows import rows, write_csv

    if len(args.delimiter) != 1:
        raise ConfigError(f"--delimiter must be one character, got {args.delimiter!r}")
    tables = rows(read_records(args.log))
    for kind, table in zip(("train", "test"), tables, strict=True):
        path = Path(args.folder) / f"{Path(args.log).name}.{kind}"
        if not table:
            say(args, f"Not writing {path}; no lines to write")
            continue
        try:
            write_csv(path, table, args.delimiter)
        except OSError as error:
            raise ResourceError(f"{path}: {error.strerror}") from None
        say(args, f"Wrote {path}")
    return 0


def say(args: argparse.Namespace, line: str) -> None:
    if args.verbose:
        print(line)
