"""Evaluate a trained model on labelled images: top-1 and top-5, each class, what is confused.

MODEL is a model of the zoo (with --weights, else its published ones), a net prototxt with
--weights, or a .caffemodel, which holds its net. --data is an LMDB or LevelDB, a folder with a
folder for each class, or a list as of an ImageData layer (with --root).

Images are prepared as the model wants it: as the data layer of a prototxt does in TEST, else as the
weights recorded in training, else as the zoo says. --crops 10 takes the mean over the four corners,
the centre and their mirror images. What cannot be decoded is listed and left out.

examples:
  cortado eval lenet_digits --data digits_test_lmdb
  cortado eval resnet50 --data photos/val --labels wnids.txt --crops 10 --json result.json
  cortado eval train_val.prototxt --weights net_iter_1000.caffemodel --data test_lmdb
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError
from . import device, running
from .classification import overrides
from .flags import at_least, comma_list, one_of, switch
from .output.bars import steps
from .variables import configure_set, settings

if TYPE_CHECKING:
    from .classification.model import Model
    from .classification.samples import Samples

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="zoo model, net prototxt or .caffemodel")
    parser.add_argument("--data", default="", help="database, folder of folders or list (required)")
    parser.add_argument("--root", default="", help="what is put before the paths of a list")
    parser.add_argument("--weights", default="", help="file of weights, or zoo:NAME")
    parser.add_argument("--crops", type=one_of("1", "10"), default="1", help="1 (default) or 10")
    switch(parser, "flip", "take the mean over the image and its mirror image")
    overrides.configure(parser)
    parser.add_argument(
        "--data_order", type=one_of("bgr", "rgb"), help="channels of raw records (default BGR)"
    )
    parser.add_argument("--labels", default="", help="file with a class name a line")
    parser.add_argument("--output", default="", help="blob of the scores, if there are several")
    parser.add_argument("--batch", type=at_least(1), default=50, help="crops at once (default 50)")
    parser.add_argument("--limit", type=at_least(1), help="evaluate only so many images")
    parser.add_argument("--rows", type=at_least(1), default=10, help="rows of the tables (10)")
    parser.add_argument("--confusion", default="", help="picture of the confusion matrix to write")
    parser.add_argument("--json", default="", help="file to write the results to")
    parser.add_argument("--csv", default="", help="file to write a line for each image to")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
    parser.add_argument("--gpu", default="", help="GPU id; the CPU without it")
    configure_set(parser)
    running.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate and report; ConfigError for flags that contradict each other."""
    from ..layers.data.preprocessing import Views
    from ..netdef.execution import prepared_process
    from .classification import report
    from .classification.evaluation import evaluate
    from .classification.samples import open_samples

    if not args.data:
        raise ConfigError("cortado eval: --data is needed: a database, a folder or a list")
    if args.flip and args.crops == "10":
        raise ConfigError("--flip goes with one crop: ten crops have their mirror images already")
    report.check_targets(args)
    where = device.first(args.gpu)
    samples = open_samples(args.data, args.root)
    with prepared_process(where, args.threads or 0):
        model = open_classifier(args, where, samples)
        views = Views(int(args.crops), args.flip)
        if views.crops == 10 and not model.preprocessing.transform.crop_size:
            raise ConfigError(
                f"--crops 10: the preprocessing (from {model.origin}) takes the whole image; give "
                "--crop, and --resize where images are not larger"
            )
        for line in report.heading(model, views):
            logger.info(line)
        total = len(samples) if args.limit is None else min(args.limit, len(samples))
        began = time.monotonic()
        with report.csv_file(args.csv, model) as note, steps(total, "evaluating") as progress:
            measures = evaluate(
                model,
                samples,
                views,
                limit=args.limit,
                record_order=(args.data_order or "").upper(),
                threads=args.threads,
                progress=progress,
                note=note,
            )
        seconds = time.monotonic() - began
    if not measures.count:
        key, reason = measures.bad[0] if measures.bad else ("it is empty", "no records")
        raise DataError(f"{args.data}: none of its images can be used: {key}: {reason}")
    print(report.text(measures, model, seconds, args.rows))
    report.write(args, measures, model, views, seconds)
    return 0


def open_classifier(args: argparse.Namespace, where: str, samples: Samples) -> Model:
    """The model that the flags describe, for ``samples``."""
    from .classification.model import open_model
    from .classification.samples import first_picture

    return open_model(
        args.model,
        args.weights,
        overrides=overrides.Overrides.from_flags(args),
        settings=settings(args),
        stages=comma_list(args.stage),
        stored=samples.stored,
        first_image=lambda: first_picture(samples),
        labels=args.labels,
        output=args.output,
        batch=args.batch,
        device=where,
        execution=running.execution(args),
    )
