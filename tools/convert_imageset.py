"""Store images in a database, as listed in a file or as found in one folder per class.

  cortado convert_imageset [flags] ROOTFOLDER/ LISTFILE DB_NAME
  cortado convert_imageset [flags] --from_folders DIR DB_NAME

A line of LISTFILE is "PATH LABEL", parted at its last space; PATH is appended to ROOTFOLDER as it
is. With --from_folders each folder in DIR is a class; their names are written to
DB_NAME_labels.txt. With --split the records go to DB_NAME_train and DB_NAME_val.

example:
  cortado convert_imageset --resize_width 256 --resize_height 256 --shuffle images/ list.txt db
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError
from .flags import at_least, one_of, switch
from .output.bars import steps

if TYPE_CHECKING:
    from ..layers.data.conversion import Report
    from ..layers.data.lists import ListedImage

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="ROOTFOLDER/ LISTFILE DB_NAME")
    switch(parser, "gray", "store one channel")
    switch(parser, "shuffle", "put the list in random order once")
    parser.add_argument(
        "--backend", type=one_of("lmdb", "leveldb"), default="lmdb", help="format of the database"
    )
    for side in ("width", "height"):
        help = f"{side} that images get if both sizes are given (0: as they are)"
        parser.add_argument(f"--resize_{side}", type=at_least(0), default=0, help=help)
    switch(parser, "check_size", "stop if an image has another number of values than the first")
    switch(parser, "encoded", "store compressed images")
    parser.add_argument(
        "--encode_type", default="", help="png, jpg ...; implies encoded (default: the file's own)"
    )
    parser.add_argument("--from_folders", metavar="DIR", help="one folder per class, no list")
    parser.add_argument(
        "--split", type=_fraction, metavar="FRACTION", help="part that goes to DB_NAME_train"
    )
    switch(parser, "resume", "go on with a conversion of the same images that was interrupted")
    parser.add_argument("--seed", type=int, default=0, help="of --shuffle and --split")
    parser.add_argument("--threads", type=at_least(1), help="that read images (default: all cores)")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Convert and say what was done; ConfigError for flags that contradict each other."""
    root, listed, classes, list_name, database = _listed(args)
    logger.info("A total of %d images.", len(listed))
    for part, name in _parts(args, listed, database):
        if args.resume and _is_complete(name):
            print(f"{name}: is complete")
            continue
        with steps(len(part), f"writing {name}") as progress:
            report = _convert(args, part, root, name, list_name, progress)
        _say(report)
        if classes:
            names = "".join(f"{each}\n" for each in classes)
            Path(f"{database}_labels.txt").write_text(names, encoding="utf-8")
    return 0


def _listed(args: argparse.Namespace) -> tuple[str, list[ListedImage], list[str], str, str]:
    """Root folder, images, classes if folders tell them, name of the list, and database."""
    from ..layers.data.conversion import list_folders
    from ..layers.data.lists import read_image_list

    if args.from_folders is None:
        if len(args.paths) != 3:
            raise ConfigError(
                "convert_imageset: needs ROOTFOLDER/ LISTFILE DB_NAME, "
                f"got {len(args.paths)} arguments (see cortado convert_imageset --help)"
            )
        root, list_name, database = args.paths
        if Path(root).is_dir() and not root.endswith("/"):
            logger.warning("ROOTFOLDER %r does not end in /; paths are appended as they are", root)
        return root, read_image_list(list_name), [], list_name, database
    if len(args.paths) != 1:
        raise ConfigError(
            f"convert_imageset: --from_folders needs just DB_NAME, got {len(args.paths)} arguments"
        )
    listed, classes = list_folders(args.from_folders)
    database = args.paths[0].rstrip("/")
    return f"{args.from_folders.rstrip('/')}/", listed, classes, args.from_folders, database


def _parts(
    args: argparse.Namespace, listed: list[ListedImage], database: str
) -> Iterator[tuple[Sequence[ListedImage], str]]:
    from ..layers.data.conversion import split

    if args.split is None:
        yield listed, database
        return
    train, rest = split(listed, args.split, args.seed)
    if not train or not rest:
        raise ConfigError(
            f"convert_imageset: --split {args.split:g} puts {len(train)} of the {len(listed)} "
            f"images into {database}_train and {len(rest)} into {database}_val; both need some"
        )
    yield train, f"{database}_train"
    yield rest, f"{database}_val"


def _is_complete(database: str) -> bool:
    from ..layers.data import incomplete
    from ..layers.data.lmdb_reader import is_lmdb

    return is_lmdb(database) and not incomplete.is_marked(Path(database))


def _convert(
    args: argparse.Namespace,
    part: Sequence[ListedImage],
    root: str,
    database: str,
    list_name: str,
    progress: Callable[[int], None] | None,
) -> Report:
    from ..layers.data.conversion import Options, convert

    options = Options(
        gray=args.gray,
        resize_width=args.resize_width,
        resize_height=args.resize_height,
        check_size=args.check_size,
        encoded=args.encoded,
        encode_type=args.encode_type,
    )
    return convert(
        part,
        root,
        database,
        options,
        list_name=list_name,
        shuffle_seed=args.seed if args.shuffle else None,
        threads=args.threads,
        progress=progress,
        resume=args.resume,
        backend=args.backend,
    )


def _say(report: Report) -> None:
    print(f"{report.database}: {report.stored} records")
    if report.skipped:
        reasons = Counter(reason.split(": ", 1)[-1] for _, reason in report.skipped)
        print(f"left out: {len(report.skipped)} images")
        for reason, count in reasons.most_common():
            print(f"  {count} x {reason}")
