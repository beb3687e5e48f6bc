"""Print the net for deployment: data and losses dropped, Input and Softmax in their place.

Layers of phase TEST and stage "deploy" are taken; the data layer's preprocessing is recorded in the
Input layer. Weights of the trained net fit the printed one.

example:
  cortado deploy model_zoo/vgg19/net.prototxt > deploy.prototxt
"""

from __future__ import annotations

import argparse
import sys

from .flags import parse_shape, shape_flag
from .variables import configure_set, settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="net prototxt")
    shape_flag(parser)
    configure_set(parser)


def run(args: argparse.Namespace) -> int:
    from ..netdef.deploy import deploy
    from ..proto.files import read_net
    from ..proto.text import to_text

    shapes = dict(map(parse_shape, args.shape))
    sys.stdout.write(to_text(deploy(read_net(args.net, settings(args)), shapes)))
    return 0
