"""Rewrite the prototxt of an old net in the current format.

OUT is written even if IN is up to date. The exit code is 1 if something could not be kept, 2 if IN
cannot be read.

example:
  cortado upgrade_net_proto_text old.prototxt new.prototxt
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
    from ..proto.files import write_text

    return upgrading.upgrade_net_file(args, "upgrade_net_proto_text", "text", _read, write_text)


def _read(path: str) -> NetParameter:
    from ..proto.caffe_pb2 import NetParameter
    from ..proto.files import read_prototxt

    return read_prototxt(path, NetParameter).message
