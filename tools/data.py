"""Look into a database of images: what it holds, what is broken, its images as files.

  cortado data info DB          count, shapes, labels, mean, deviation; --sheet F.png draws samples
  cortado data check DB         decode every record, list the bad ones; exit code 3 for any
  cortado data export DB DIR    write images to DIR/<label>/, and a list for convert_imageset

example:
  cortado data info train_lmdb --sheet samples.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError
from .flags import at_least, named
from .output.bars import steps

if TYPE_CHECKING:
    from ..layers.data.database import Database
    from ..layers.data.inspection import Summary

_SHOWN_BAD = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", type=named("action", ACTIONS), metavar="ACTION", help=", ".join(ACTIONS)
    )
    parser.add_argument("paths", nargs="*", metavar="DB [DIR]")
    parser.add_argument("--sheet", metavar="FILE", help="info: draw sample images with labels")
    parser.add_argument("--samples", type=at_least(1), default=64, help="images on the sheet (64)")
    parser.add_argument(
        "--class_weights",
        metavar="FILE",
        help="info: write weights that make all classes count the same, for InfogainLoss",
    )
    parser.add_argument("--model", help="check: labels must fit this net's classes")
    parser.add_argument("--classes", type=at_least(1), help="check: labels must be below this")
    parser.add_argument("--threads", type=at_least(1), help="that read images (default: all cores)")


def run(args: argparse.Namespace) -> int:
    action, count = ACTIONS[args.action]
    if len(args.paths) != count:
        needed = "DB" if count == 1 else "DB DIR"
        raise ConfigError(f"data {args.action}: needs {needed}, got {len(args.paths)} arguments")
    from ..layers.data.database import open_any

    database = open_any(args.paths[0])
    try:
        return action(args, database)
    finally:
        database.close()


def info(args: argparse.Namespace, database: Database) -> int:
    """Print what the database holds."""
    from ..layers.data.inspection import contact_sheet, examine, size_on_disk

    with steps(len(database), f"reading {database.path}") as progress:
        summary = examine(database, threads=args.threads, progress=progress)
    print(f"{database.path}: {summary.records:,} records")
    print(f"size: {size_on_disk(database.path):,} bytes on disk")
    kinds = {
        "encoded": summary.encoded,
        "raw bytes": summary.records - summary.encoded - summary.floats,
        "floats": summary.floats,
    }
    print("stored as: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count))
    _print_shapes(summary)
    for name, values in (("mean", summary.mean), ("deviation", summary.deviation)):
        if values:
            print(f"{name} of each channel: {' '.join(f'{value:.3f}' for value in values)}")
    _print_labels(summary)
    _print_bad(summary)
    if args.sheet:
        _write_sheet(args.sheet, contact_sheet(database, args.samples))
    if args.class_weights:
        _write_weights(args.class_weights, summary)
    return 0


def check(args: argparse.Namespace, database: Database) -> int:
    """Decode every record; DataError with the number of bad ones after they are listed."""
    from ..layers.data.inspection import examine

    classes = args.classes if args.model is None else _classes_of(args.model)
    with steps(len(database), f"checking {database.path}") as progress:
        summary = examine(database, classes=classes, threads=args.threads, progress=progress)
    for line in summary.bad:
        print(line)
    if len(summary.shapes) > 1:
        _print_shapes(summary)
    if summary.bad:
        raise DataError(
            f"{database.path}: {len(summary.bad):,} of {summary.records:,} records are bad"
        )
    limit = "" if classes is None else f", all labels are below {classes}"
    print(f"{database.path}: all {summary.records:,} records can be read{limit}")
    return 0


def export(args: argparse.Namespace, database: Database) -> int:
    """Write every record as an image file."""
    from ..layers.data.inspection import export as write

    with steps(len(database), f"writing {args.paths[1]}") as progress:
        count, bad = write(database, args.paths[1], progress)
    print(f"{args.paths[1]}: {count:,} images and list.txt")
    for line in bad:
        print(f"left out: {line}")
    return 0


def _classes_of(model: str) -> int:
    """The least number of classes of the layers that read labels in the net ``model``."""
    from ..netdef.blueprint import draw

    plan = draw(model, "TRAIN")
    found = [step.layer.label_range(step.bottom_shapes) for step in plan.steps]
    ranges = [each.classes for each in found if each is not None]
    for step in plan.sources:
        step.source.close()
    if not ranges:
        raise ConfigError(f"{model}: no layer of this net reads class labels; give --classes N")
    return min(ranges)


def _print_shapes(summary: Summary) -> None:
    if not summary.shapes:
        return
    print("shapes (channels x height x width):")
    for shape, count in summary.shapes.most_common(10):
        print(f"  {'x'.join(map(str, shape))}: {count:,}")
    if len(summary.shapes) > 10:
        print(f"  and {len(summary.shapes) - 10} more")


def _print_labels(summary: Summary) -> None:
    for length, count in sorted(summary.vectors.items()):
        print(f"vectors of {length} labels: {count:,}")
    known = {label: count for label, count in summary.labels.items() if label is not None}
    if missing := summary.labels[None]:
        print(f"without a label: {missing:,}")
    if not known:
        return
    low, high = min(known), max(known)
    print(f"labels: {len(known)} different, from {low} to {high}")
    largest = max(known.values())
    for label in sorted(known)[:50]:
        bar = "#" * max(1, round(40 * known[label] / largest))
        print(f"  {label:>6} {known[label]:>10,} {bar}")
    if len(known) > 50:
        print(f"  and {len(known) - 50} more")


def _print_bad(summary: Summary) -> None:
    if summary.bad:
        print(f"bad records: {len(summary.bad):,}")
        for line in summary.bad[:_SHOWN_BAD]:
            print(f"  {line}")


def _write_sheet(path: str, sheet: object) -> None:
    import cv2

    if Path(path).suffix.lower() != ".png" or not cv2.imwrite(path, sheet):  # type: ignore[call-overload]
        raise ConfigError(f"--sheet {path}: must be a PNG file in a folder that can be written to")
    print(f"{path}: sample images")


def _write_weights(path: str, summary: Summary) -> None:
    """A diagonal matrix for InfogainLoss: with it each class has the same weight in the loss."""
    import numpy as np

    from ..layers.data.labels import class_weights
    from ..layers.data.mean import write_mean

    histogram = {
        label: n for label, n in summary.labels.items() if label is not None and label >= 0
    }
    if not histogram:
        raise DataError("--class_weights: the records have no labels")
    matrix = np.zeros((max(histogram) + 1,) * 2, np.float32)
    for label, weight in class_weights(histogram).items():
        matrix[label, label] = weight
    write_mean(matrix[None], path)
    print(f"{path}: weights of {len(histogram)} classes (infogain_loss_param {{ source }})")


#: What each action calls, and how many paths it needs.
ACTIONS: dict[str, tuple[Callable[[argparse.Namespace, Database], int], int]] = {
    "info": (info, 1),
    "check": (check, 1),
    "export": (export, 2),
}
