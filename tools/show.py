"""Pictures of a trained net and of what it predicts.

cortado show filters NET WEIGHTS OUT      the filters of --layer (default: the first convolution)
cortado show activations NET WEIGHTS OUT  the maps of every convolution for one image
cortado show confusion NET WEIGHTS OUT    which class is taken for which, and scores of each class
cortado show worst NET WEIGHTS OUT        the images that are classified worst
cortado show gradcam NET WEIGHTS OUT      where in an image its class is seen

NET is the net for training and testing; OUT ends in .png or .svg. One image is --image FILE, or
number --index of the test data.

example:
  cortado show confusion train_val.prototxt digits_iter_500.caffemodel confusion.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..proto.errors import ConfigError, DataError
from . import device
from .check import aligned
from .classification.names import class_names
from .flags import at_least, comma_list, named

if TYPE_CHECKING:
    from torch import Tensor

    from ..netdef import Net


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", type=named("kind", KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("net", metavar="NET", help="net prototxt with its data layers")
    parser.add_argument("weights", metavar="WEIGHTS", help="trained weights")
    parser.add_argument("picture", metavar="OUT", help="picture to write")
    parser.add_argument("--layer", default="", help="layer for filters and gradcam")
    parser.add_argument("--image", default="", help="image file for activations and gradcam")
    parser.add_argument("--index", type=at_least(0), default=0, help="test sample instead (0)")
    parser.add_argument("--class", dest="wanted", type=int, default=-1, help="class for gradcam")
    parser.add_argument("--labels", default="", help="file with a class name a line")
    parser.add_argument("--count", type=at_least(1), default=25, help="images of worst (25)")
    parser.add_argument(
        "--iterations", type=at_least(0), default=0, help="test batches (default: the whole set)"
    )
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
    parser.add_argument("--gpu", default="", help="GPU id; the CPU without it")


def run(args: argparse.Namespace) -> int:
    draw = KINDS[args.kind]
    from ..netdef import Net
    from .classification.contradictions import report_data_layers

    net = Net(
        args.net,
        "TEST",
        stages=comma_list(args.stage),
        weights=Path(args.weights),
        device=device.first(args.gpu),
    )
    try:
        report_data_layers(net)
        draw(net, args)
    finally:
        net.close()
    print(f"Wrote {args.picture}")
    return 0


def filters(net: Net, args: argparse.Namespace) -> None:
    from ..solvers.hooks import pictures
    from .output.views import pictures_in_a_grid

    if args.layer:
        weight = getattr(net.layer(args.layer).layer, "weight", None)
        found = None if weight is None else (args.layer, weight)
    else:
        found = pictures.first_filters(net)
    if found is None or found[1].dim() != 4:
        raise ConfigError(f"{args.layer or args.net}: has no filters that can be shown")
    name, weight = found
    if weight.shape[1] not in (1, 3):
        # Filters of many channels: each filter by the mean over its inputs.
        weight = weight.mean(1, keepdim=True)
    shape = "x".join(map(str, found[1].shape))
    grid = pictures.batch(weight)
    pictures_in_a_grid([(f"{name}: {shape}", grid)], Path(args.picture), side=4)


def activations(net: Net, args: argparse.Namespace) -> None:
    import torch

    from ..solvers.hooks import pictures
    from .output.predictions import find_head
    from .output.views import image, pictures_in_a_grid

    head = find_head(net)
    picture = one_image(net, head.image, args)
    net.keep_blobs = True
    batch = {
        name: torch.zeros((1, *shape[1:]), device=picture.device)
        for name, shape in net.inputs.items()
    }
    with torch.no_grad():
        net(**(batch | {head.image: picture[None]}))
    grids = [("input", image(picture))]
    for step in net.steps:
        if step.type in pictures.ACTIVATIONS:
            grids.append((step.name, pictures.channels(net.blobs[step.tops[0]][0])))
    if len(grids) < 2:
        raise ConfigError(f"{args.net}: has no convolution whose maps could be shown")
    pictures_in_a_grid(grids, Path(args.picture))


def confusion(net: Net, args: argparse.Namespace) -> None:
    from .output import views
    from .output.predictions import Confusion, find_head, samples

    head = find_head(net)
    classes = net.blob_shapes[head.scores][1]
    names = class_names(args.labels, classes)
    found = Confusion.of(classes, samples(net, head, args.iterations))
    rows: list[tuple[str, ...]] = [("class", "images", "precision", "recall", "F1")]
    for name, count, scores in zip(
        names, found.counts.sum(1).tolist(), found.scores(), strict=True
    ):
        rows.append((name, str(count), *(f"{score:.3f}" for score in scores)))
    print(aligned(rows, right=(1, 2, 3, 4)))
    print(f"accuracy = {found.accuracy:.4f}")
    views.confusion(found, names, Path(args.picture))


def worst(net: Net, args: argparse.Namespace) -> None:
    from .output import predictions, views

    head = predictions.find_head(net)
    names = class_names(args.labels, net.blob_shapes[head.scores][1])
    found = predictions.worst(predictions.samples(net, head, args.iterations), args.count)
    if not found:
        raise DataError("every image is classified rightly: there is no worst one to show")
    views.contact_sheet(found, names, Path(args.picture))


def gradcam(net: Net, args: argparse.Namespace) -> None:
    from .output import predictions, views

    head = predictions.find_head(net)
    names = class_names(args.labels, net.blob_shapes[head.scores][1])
    picture = one_image(net, head.image, args)
    found = predictions.explain(net, head, picture, args.layer, args.wanted)
    print(f"class {names[found.wanted]}: {found.probability:.4f}")
    views.reason(found, names, Path(args.picture))


def one_image(net: Net, blob: str, args: argparse.Namespace) -> Tensor:
    """The image of --image, prepared as the net's data layer does, or that of --index."""
    source = next(step for step in net.sources if blob in step.tops)
    if args.image:
        from ..layers.data.preprocessing import Preprocessing

        message = source.source.preprocessing(blob)
        if message is None:
            raise ConfigError(
                f"layer {source.name!r}: does not say how images are prepared; use --index"
            )
        return Preprocessing.from_message(message)(args.image).to(net.params[0].tensor.device)
    size = source.top_shapes[0][0]
    for _ in range(args.index // size):
        net.next_batch()
    return net.next_batch()[blob][args.index % size]


KINDS: dict[str, Callable[[Any, argparse.Namespace], None]] = {
    "filters": filters,
    "activations": activations,
    "confusion": confusion,
    "worst": worst,
    "gradcam": gradcam,
}
