"""Draw a net as a picture: PNG, SVG or PDF, or graphviz's .dot text.

graphviz is used where its program dot is installed; otherwise a plainer drawing is made. With
--phase TRAIN or TEST the boxes show the shapes of their blobs.

example:
  cortado draw_net --phase TEST examples/digits/deploy.prototxt digits.png
"""

from __future__ import annotations

import argparse

from .flags import at_least, one_of
from .variables import configure_set, settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="IN", help="net prototxt")
    parser.add_argument("picture", metavar="OUT", help="file to write; its ending says which kind")
    parser.add_argument(
        "--rankdir", type=one_of("lr", "rl", "tb", "bt"), default="lr", help="direction (LR)"
    )
    parser.add_argument(
        "--phase", type=one_of("all", "train", "test"), default="all", help="default ALL"
    )
    parser.add_argument(
        "--depth",
        type=at_least(0),
        help="draw blocks nested this deep as one box each: 0 closes all (with --phase ALL)",
    )
    configure_set(parser)


def run(args: argparse.Namespace) -> int:
    from ..proto.blocks.outline import folded
    from ..proto.files import read_net
    from .output import diagram

    document = read_net(args.net, settings(args))
    if args.phase == "all":
        layers, shapes = list(document.message.layer), {}
        if args.depth is not None:
            layers = folded(document, args.depth)
    else:
        from ..netdef.blueprint import draw

        plan = draw(document, args.phase.upper())
        layers, shapes = [each.spec.message for each in plan.order], plan.blob_shapes
    diagram.draw(diagram.lay_out(layers, shapes), args.picture, args.rankdir.upper())
    print(f"Drawing net to {args.picture}")
    return 0
