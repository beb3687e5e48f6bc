"""Write a ready experiment from a folder of images: databases, net, solver, README.

--images has one folder per class. A part of each class's images is kept for testing. Without
--model the net is a small one for images of --size pixels; with it a model of the zoo (see cortado
zoo list), which --fine-tune starts from its published weights.

examples:
  cortado new flowers --images photos/flowers
  cortado new flowers --images photos/flowers --model resnet18 --fine-tune
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, ResourceError
from .flags import at_least, switch

if TYPE_CHECKING:
    from ..layers.data.lists import ListedImage
    from ..model_zoo.index import Model
    from ..proto.caffe_pb2 import NetParameter
    from .experiments.nets import Data
    from .experiments.plan import Plan

logger = logging.getLogger(__name__)
NET, SOLVER, DEPLOY = "train_val.prototxt", "solver.prototxt", "deploy.prototxt"
TRAIN, TEST, MEAN, LABELS = "train_lmdb", "test_lmdb", "mean.binaryproto", "labels.txt"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="folder to write, and name of the net")
    parser.add_argument("--images", default="", help="folder with a folder per class (required)")
    parser.add_argument("--model", default="", help="model of the zoo (default: a small net)")
    switch(parser, "fine_tune", "start from the model's published weights")
    parser.add_argument("--size", type=at_least(8), default=32, help="of images, small net (32)")
    switch(parser, "gray", "grey images")
    parser.add_argument("--batch", type=at_least(1), default=32, help="images a batch (32)")
    parser.add_argument("--epochs", type=at_least(1), default=20, help="times over the images (20)")


def run(args: argparse.Namespace) -> int:
    from ..layers.data.conversion import list_folders, split

    folder = Path(args.name)
    _check(args, folder)
    listed, classes = list_folders(args.images)
    train, test = split(listed, 0.8, seed=1)
    if not train or not test or len(classes) < 2:
        raise ConfigError(
            f"--images {args.images}: {len(listed)} images of {len(classes)} classes are too few "
            "to learn and to test; each class needs several"
        )
    model = _model(args)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(f"{folder}: {error.strerror}") from None
    root = str(Path(args.images).resolve()) + "/"
    with _whole(folder), contextlib.chdir(folder):
        Path(LABELS).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        stored = _databases(root, train, test, _size(args, model), _is_gray(args, model))
        plan = _write(args, model, folder.name, len(classes), stored)
    counts = Counter(classes[image.label] for image in listed)
    print(f"{folder}: {plan.train} images to learn, {plan.test} to test, {len(classes)} classes")
    print("  " + ", ".join(f"{name} {counts[name]}" for name in classes[:10]))
    print(f"next: cd {folder} && cortado train --solver {SOLVER} --log_file train.log")
    return 0


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Take the folder, which is new, away if the block does not end well."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check(args: argparse.Namespace, folder: Path) -> None:
    if not args.images:
        raise ConfigError("cortado new: --images DIR is needed: a folder with a folder per class")
    if not _NAME.fullmatch(folder.name):
        raise ConfigError(f"NAME must be letters, digits, _ and -, got {folder.name!r}")
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; choose another name")
    if args.fine_tune and not args.model:
        raise ConfigError("--fine_tune needs --model, whose published weights it starts from")


def _model(args: argparse.Namespace) -> Model | None:
    from ..model_zoo import index

    return index.find(args.model) if args.model else None


def _is_gray(args: argparse.Namespace, model: Model | None) -> bool:
    return bool(args.gray) if model is None else model.input[0] == 1


def _size(args: argparse.Namespace, model: Model | None) -> int:
    """The size at which images are stored: a little larger where the net cuts a part out."""
    from ..proto.files import read_net
    from .experiments.nets import crop_of

    if model is None:
        return int(args.size)
    crop = crop_of(read_net(model.net_file).message)
    return round(crop * 8 / 7) if crop else int(model.input[1])


def _databases(
    root: str, train: list[ListedImage], test: list[ListedImage], size: int, gray: bool
) -> tuple[int, int]:
    """Write both databases, the training images in random order, and the mean; their sizes."""
    from ..layers.data.conversion import Options, convert
    from ..layers.data.mean import compute_mean, write_mean

    options = Options(gray=gray, resize_width=size, resize_height=size)
    stored = [
        convert(part, root, name, options, list_name=root, shuffle_seed=1).stored
        for part, name in ((train, TRAIN), (test, TEST))
    ]
    write_mean(compute_mean(TRAIN), MEAN)
    return stored[0], stored[1]


def _write(
    args: argparse.Namespace,
    model: Model | None,
    name: str,
    classes: int,
    stored: tuple[int, int],
) -> Plan:
    from ..layers.data.transform import read_mean
    from ..netdef.deploy import deploy
    from ..proto.files import read_net
    from .experiments import nets
    from .experiments.plan import Plan

    batch = min(args.batch, stored[0])
    plan = Plan(*stored, batch, args.epochs, args.fine_tune)
    mean = read_mean(MEAN)
    values = tuple(round(float(value), 3) for value in mean.mean(axis=(1, 2)))
    data = nets.Data(TRAIN, TEST, batch, plan.test_batch, classes, len(mean), values)
    nets.write(_net(args, model, name, data), Path(NET), f"{name}: for training and testing")
    weights = f"zoo:{args.model}" if args.fine_tune else ""
    Path(SOLVER).write_text(plan.solver(NET, name, weights), encoding="utf-8")
    deployed = deploy(read_net(NET))
    nets.write(deployed, Path(DEPLOY), f"{name}: for use, one image in, probabilities out")
    Path("README.md").write_text(_readme(name, plan, classes, args), encoding="utf-8")
    return plan


def _net(args: argparse.Namespace, model: Model | None, name: str, data: Data) -> NetParameter:
    from .experiments import nets

    if model is None:
        return nets.small(name, data)
    return nets.fitted(model, name, data, args.fine_tune)


def _readme(name: str, plan: Plan, classes: int, args: argparse.Namespace) -> str:
    steps = plan.epoch * plan.epochs
    batches = -(-plan.test // plan.test_batch)
    weights = f"{name}_iter_{steps}.caffemodel"
    origin = f"the zoo's {args.model}" if args.model else "a small convolutional net"
    how = ", fine-tuned from its published weights" if args.fine_tune else ""
    return f"""# {name}

{plan.train} images to learn and {plan.test} to test, in {classes} classes.
The net is {origin}{how}.

    cortado check {SOLVER} --data
    cortado train --solver {SOLVER} --log_file train.log
    cortado test --model {NET} --weights {weights} --iterations {batches}
    cortado show confusion {NET} {weights} confusion.png --labels {LABELS}

- `{NET}`, `{SOLVER}`: the net, and how it learns
- `{DEPLOY}`: the net for use
- `{TRAIN}`, `{TEST}`, `{MEAN}`: the images and their mean
- `{LABELS}`: the names of the classes, in the order of their numbers
"""
