"""Store what a trained net computes from its data: blobs become databases of float records.

  cortado extract_features WEIGHTS NET BLOB[,BLOB2] DB[,DB2] BATCHES lmdb|leveldb \\
      [CPU|GPU] [DEVICE_ID=0]

NET has a data layer in its TEST phase. Records have keys 0000000000, 0000000001 ... and the blob's
values of one sample as float_data, without a label, as Caffe's tool writes them.

example:
  cortado extract_features net.caffemodel net.prototxt fc7,prob fc7_lmdb,prob_lmdb 10 lmdb
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, nearest
from .flags import comma_list

if TYPE_CHECKING:
    from torch import Tensor

    from ..layers.data.writers import DatabaseWriter
    from ..netdef import Net

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "arguments", nargs="*", metavar="WEIGHTS NET BLOBS DBS BATCHES lmdb|leveldb"
    )


def run(args: argparse.Namespace) -> int:
    """Extract and store; ConfigError for arguments that cannot work."""
    given: list[str] = args.arguments
    if not 6 <= len(given) <= 8:
        raise ConfigError(
            f"extract_features: needs 6 to 8 arguments, got {len(given)} "
            "(see cortado extract_features --help)"
        )
    weights, model = given[:2]
    blobs, databases = comma_list(given[2]), comma_list(given[3])
    if len(blobs) != len(databases):
        raise ConfigError(
            f"extract_features: {len(blobs)} blobs and {len(databases)} databases are given; "
            "there must be one database for each blob"
        )
    if not given[4].isdigit() or int(given[4]) < 1:
        raise ConfigError(f"extract_features: BATCHES must be a number from 1, got {given[4]!r}")
    if given[5].lower() not in ("lmdb", "leveldb"):
        raise ConfigError(f"extract_features: must be lmdb or leveldb, got {given[5]!r}")
    from pathlib import Path

    from ..netdef import Net

    net = Net(model, "TEST", weights=Path(weights), device=_device(given[6:]))
    try:
        count = extract(net, blobs, databases, int(given[4]), given[5].lower())
    finally:
        net.close()
    for blob, database in zip(blobs, databases, strict=True):
        print(f"{database}: {count} records of blob {blob}")
    return 0


def _device(given: Sequence[str]) -> str:
    from . import device

    if given and given[0].upper() not in ("CPU", "GPU"):
        raise ConfigError(f"extract_features: must be CPU or GPU, got {given[0]!r}")
    on_gpu = bool(given) and given[0].upper() == "GPU"
    return str(device.first((given[1] if len(given) > 1 else "0") if on_gpu else ""))


def extract(
    net: Net, blobs: Sequence[str], databases: Sequence[str], batches: int, backend: str = "lmdb"
) -> int:
    """Write each of ``blobs`` of ``batches`` batches to its new database; how many samples.

    ConfigError for a blob that the net has not, or a database that exists.
    """
    import torch

    from ..layers.data.writers import create_database

    for blob in blobs:
        if blob not in net.blob_shapes:
            hint = nearest(blob, net.blob_shapes)
            raise ConfigError(f"net {net.name!r} has no blob {blob!r}{hint}")
    net.keep_blobs = True
    count = 0
    with ExitStack() as stack, torch.no_grad():
        writers = [
            stack.enter_context(create_database(database, backend)) for database in databases
        ]
        for _ in range(batches):
            net(**net.next_batch())
            for blob, writer in zip(blobs, writers, strict=True):
                _store(writer, net.blobs[blob])
            if count // 1000 != writers[0].count // 1000:
                logger.info(f"Extracted features of {writers[0].count} query images")
            count = writers[0].count
    return count


def _store(writer: DatabaseWriter, blob: Tensor) -> None:
    from ..proto import caffe_pb2

    samples = (
        blob.detach().to("cpu").float().reshape(blob.shape[0] if blob.dim() else 1, -1).numpy()
    )
    # The older four sizes of a blob, missing ones being 1.
    channels, height, width = (*blob.shape[1:4], 1, 1, 1)[:3]
    for sample in samples:
        datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
        datum.float_data.extend(sample)
        writer.put(b"%010d" % writer.count, datum.SerializeToString())
