"""Print a net or solver as plain prototxt: blocks, repetition, variables and includes resolved.

The output is what every Caffe tool reads. --tree shows instead which block each layer came from.

example:
  cortado expand --set depth=50 model_zoo/resnet50_caffe/net.prototxt
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .flags import switch
from .variables import configure_set, settings

if TYPE_CHECKING:
    from ..proto.blocks.outline import Group
    from ..proto.caffe_pb2 import LayerParameter

INDENT = "  "


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="net or solver prototxt")
    switch(parser, "tree", "show how layers are nested in blocks")
    configure_set(parser)


def run(args: argparse.Namespace) -> int:
    from ..proto.blocks.outline import outline
    from ..proto.files import read_net, read_net_or_solver
    from ..proto.text import to_text

    if args.tree:
        document = read_net(args.file, settings(args))
        print("\n".join(lines(outline(document), "")))
    else:
        sys.stdout.write(to_text(read_net_or_solver(args.file, settings(args)).message))
    return 0


def lines(children: list[Group | LayerParameter], indent: str) -> list[str]:
    """A line for each layer and group, those inside a group indented."""
    from ..proto.blocks.outline import Group

    found: list[str] = []
    for child in children:
        if isinstance(child, Group):
            found += [f"{indent}{child.title}", *lines(child.children, indent + INDENT)]
        else:
            found.append(f"{indent}{child.name} ({child.type})")
    return found
