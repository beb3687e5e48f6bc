"""Print the net for deployment: data and losses dropped, Input and Softmax in their place.

Layers of phase TEST and stage "deploy" are taken; the data layer's preprocessing is recorded in the
Input layer. Weights of the trained net fit the printed one.

example:
  cortado deploy model_zoo/vgg19/net.prototxt > deploy.prototxt
"""

from __future__ import annotations

import argparse
import sys

from ..proto.errors import ConfigError
from .flags import comma_list
from .variables import configure_set, settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="net prototxt")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="BLOB=SHAPE",
        help="shape of an input, such as data=1,3,227,227; may be repeated",
    )
    configure_set(parser)


def run(args: argparse.Namespace) -> int:
    from ..netdef.deploy import deploy
    from ..proto.files import read_net
    from ..proto.text import to_text

    shapes = dict(map(parse_shape, args.shape))
    sys.stdout.write(to_text(deploy(read_net(args.net, settings(args)), shapes)))
    return 0


def parse_shape(text: str) -> tuple[str, list[int]]:
    """The blob and the sizes of ``data=1,3,227,227``."""
    blob, equals, sizes = text.partition("=")
    numbers = comma_list(sizes)
    if not equals or not numbers or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise ConfigError(f"--shape {text}: must be a blob and its sizes, as in data=1,3,227,227")
    return blob, [int(number) for number in numbers]
