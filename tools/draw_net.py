"""Draw a net as a picture: PNG, SVG or PDF, or graphviz's .dot text.

graphviz is used where its program dot is installed; otherwise a plainer drawing is made. With
--phase TRAIN or TEST the boxes show the shapes of their blobs.

example:
  cortado draw_net --phase TEST examples/digits/deploy.prototxt digits.png
"""

from __future__ import annotations

import argparse

from .flags import one_of


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="IN", help="net prototxt")
    parser.add_argument("picture", metavar="OUT", help="file to write; its ending says which kind")
    parser.add_argument(
        "--rankdir", type=one_of("lr", "rl", "tb", "bt"), default="lr", help="direction (LR)"
    )
    parser.add_argument(
        "--phase", type=one_of("all", "train", "test"), default="all", help="default ALL"
    )


def run(args: argparse.Namespace) -> int:
    from .output import diagram

    if args.phase == "all":
        from ..netdef.blueprint import load_definition

        layers, shapes = list(load_definition(args.net).message.layer), {}
    else:
        from ..netdef.blueprint import draw

        plan = draw(args.net, args.phase.upper())
        layers, shapes = [each.spec.message for each in plan.order], plan.blob_shapes
    diagram.draw(diagram.lay_out(layers, shapes), args.picture, args.rankdir.upper())
    print(f"Drawing net to {args.picture}")
    return 0
