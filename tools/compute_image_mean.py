"""Compute the mean image of a database, for mean_file, and the mean of each channel.

  cortado compute_image_mean [flags] INPUT_DB [OUTPUT_FILE]

All images must have one size. OUTPUT_FILE is a binary BlobProto that Caffe reads too.
"""

from __future__ import annotations

import argparse

from ..proto.errors import ConfigError
from .flags import at_least, one_of
from .output.bars import steps


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="INPUT_DB [OUTPUT_FILE]")
    parser.add_argument(
        "--backend", type=one_of("lmdb", "leveldb"), default="lmdb", help="format of the database"
    )
    parser.add_argument("--threads", type=at_least(1), help="that read images (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Write the mean image and print the mean of each channel."""
    if len(args.paths) not in (1, 2):
        raise ConfigError(
            "compute_image_mean: needs INPUT_DB and maybe OUTPUT_FILE, "
            f"got {len(args.paths)} arguments (see cortado compute_image_mean --help)"
        )
    from ..layers.data.mean import compute_mean, write_mean
    from ..proto import caffe_pb2

    backend = caffe_pb2.DataParameter.DB.Value(args.backend.upper())
    with steps(None, f"reading {args.paths[0]}") as progress:
        mean = compute_mean(args.paths[0], backend, threads=args.threads, progress=progress)
    if len(args.paths) == 2:
        write_mean(mean, args.paths[1])
        print(f"Write to {args.paths[1]}")
    print(f"Number of channels: {len(mean)}")
    for channel, value in enumerate(mean.mean(axis=(1, 2), dtype="float64")):
        print(f"mean_value channel [{channel}]: {value:g}")
    return 0
