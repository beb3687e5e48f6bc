"""Rewrite a net in binary form, such as old weights, in the current format.

OUT is written even if IN is up to date. The exit code is 1 if something could not be kept, 2 if IN
cannot be read.

example:
  cortado upgrade_net_proto_binary old.caffemodel new.caffemodel
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import upgrading
from .upgrading import configure

if TYPE_CHECKING:
    from ..proto.caffe_pb2 import NetParameter

__all__ = ["configure", "run"]


def run(args: argparse.Namespace) -> int:
    from ..proto.files import write_message

    return upgrading.upgrade_net_file(
        args, "upgrade_net_proto_binary", "binary", _read, write_message
    )


def _read(path: str) -> NetParameter:
    from ..proto.caffe_pb2 import NetParameter
    from ..proto.files import read_message

    return read_message(path, NetParameter)
