"""Prepare a public data set: download its files and build train and test databases.

Downloads are checked and go on where they were interrupted. Without a network, --source DIR takes
files that you have, as they are published. ilsvrc12 (ImageNet) is not downloaded: --source names a
folder that has train/ and val/, each with a folder per class; val/ may hold the images themselves
if val.txt beside it lists "NAME LABEL".

examples:
  cortado dataset mnist --out examples/mnist
  cortado dataset cifar10 --source ~/downloads --out examples/cifar10
  cortado dataset ilsvrc12 --source ~/imagenet --out ilsvrc12 --size 256
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError, ResourceError, nearest
from .flags import at_least, switch
from .output.bars import transfer

if TYPE_CHECKING:
    from ..model_zoo.download import RemoteFile
    from .datasets.formats import Labelled
    from .datasets.known import Dataset

logger = logging.getLogger(__name__)


_ILSVRC12 = "ilsvrc12"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="mnist, fashion_mnist, cifar10, cifar100 or ilsvrc12"
    )
    parser.add_argument("--out", default=".", help="folder for databases and files (default .)")
    parser.add_argument("--source", default="", help="folder with the files; nothing is fetched")
    parser.add_argument("--url", default="", help="another place to fetch the files from")
    parser.add_argument(
        "--size", type=at_least(0), default=256, help="ilsvrc12: height and width (0: as they are)"
    )
    switch(parser, "encoded", "ilsvrc12: store compressed images")


def run(args: argparse.Namespace) -> int:
    from .datasets.known import DATASETS

    names = [*DATASETS, _ILSVRC12]
    if args.name not in names:
        hint = nearest(args.name, names)
        raise ConfigError(f"no data set {args.name!r} (there are {', '.join(names)}){hint}")
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"--out {out}: {error.strerror}") from None
    if args.name == _ILSVRC12:
        from .datasets.folders import prepare_folders

        if not args.source:
            raise ConfigError("ilsvrc12 cannot be fetched: give --source DIR with train/ and val/")
        prepare_folders(args.name, Path(args.source), out, args.size, args.encoded)
        return 0
    dataset = DATASETS[args.name]
    prepare(args.name, dataset, out, args.source, args.url)
    return 0


def prepare(name: str, dataset: Dataset, out: Path, source: str, url: str) -> None:
    """Build ``<name>_<part>_lmdb`` in ``out`` for every part, and the mean image if it has one.

    The files are those in the folder ``source`` or, if that is empty, downloaded to ``out``: from
    the address ``url``, if that is not empty.
    """
    from ..model_zoo.download import obtain

    files = {}
    for wanted in dataset.remote():
        if source:
            files[wanted.name] = given(wanted, Path(source), dataset)
            continue
        with transfer(wanted.name) as progress:
            files[wanted.name] = obtain(wanted, out, mirror=url, recheck=True, progress=progress)
    for part, read in dataset.parts.items():
        database = out / f"{name}_{part}_lmdb"
        print(f"{database}: {write(database, read(files))} images")
    if dataset.mean:
        from ..layers.data.mean import compute_mean, write_mean

        write_mean(compute_mean(str(out / f"{name}_train_lmdb")), str(out / "mean.binaryproto"))
        print(f"{out / 'mean.binaryproto'}: the mean image")


def given(wanted: RemoteFile, folder: Path, dataset: Dataset) -> Path:
    """A file in the user's folder; DataError names those that must be there."""
    path = folder / wanted.name
    if not path.is_file():
        needed = ", ".join(dataset.files)
        raise DataError(f"--source {folder}: {wanted.name} is missing (needed: {needed})")
    if not wanted.checksum.matches(path):
        logger.warning(f"{path}: is not the published file (its checksum differs)")
    return path


def write(database: Path, images: Iterable[Labelled]) -> int:
    """Store ``images`` as raw Datum records with numbers as keys; how many there were."""
    from ..layers.data.lmdb_writer import LmdbWriter
    from ..proto import caffe_pb2

    with LmdbWriter(database) as writer:
        for index, (label, pixels) in enumerate(images):
            channels, height, width = pixels.shape
            datum = caffe_pb2.Datum(
                channels=channels, height=height, width=width, label=label, data=pixels.tobytes()
            )
            writer.put(f"{index:08d}".encode(), datum.SerializeToString())
        return writer.count
