"""Score windows of images with a net, as R-CNN does, and save the scores.

With --crop_mode list INPUT is a .csv file with the columns filename, ymin, xmin, ymax, xmax; with
selective_search (the default) a .txt file of image paths, whose windows are proposed. Selective
Search comes with OpenCV's contrib modules; without them windows of several sizes and shapes over
the whole image, and around its stable regions, take its place, which the log says. OUTPUT.csv has
a row a window with the columns filename, ymin, xmin, ymax, xmax, class0, class1 ...; OUTPUT.h5 the
data sets filename, window and prediction.

example:
  cortado detect windows.csv scores.csv --crop_mode list --model_def deploy.prototxt \\
    --pretrained_model w.caffemodel --mean_file ''
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..proto.errors import ConfigError, DataError, ResourceError
from . import images
from .flags import at_least, one_of

if TYPE_CHECKING:
    import numpy as np

EDGES = ("ymin", "xmin", "ymax", "xmax")
LIST, SEARCH = "list", "selective_search"

#: An image file and the windows in it.
Windows = list[tuple[str, Any]]


def configure(parser: argparse.ArgumentParser) -> None:
    images.configure_model(parser)
    parser.add_argument(
        "--crop_mode", type=one_of(LIST, SEARCH), default=SEARCH, help=f"{SEARCH} (default), {LIST}"
    )
    parser.add_argument(
        "--context_pad", type=at_least(0), default=16, help="pixels of context (default 16)"
    )


def run(args: argparse.Namespace) -> int:
    from .pycaffe.detector import Detector

    images.check_files(args)
    values = images.values_of(args, images.record_of(args))
    mean = values.mean
    if mean is not None and mean.ndim == 3:
        mean = mean.mean(axis=(1, 2))
    detector = images.build(
        args,
        lambda: Detector(
            args.model_def,
            args.pretrained_model,
            mean=mean,
            input_scale=values.input_scale,
            raw_scale=values.raw_scale,
            channel_swap=values.channel_swap,
            context_pad=args.context_pad,
        ),
    )
    side = min(detector.blobs[detector.inputs[0]].shape[2:])
    if 2 * args.context_pad >= side:
        raise ConfigError(
            f"--context_pad must be less than half the net's input of {side} pixels, "
            f"got {args.context_pad}"
        )
    began = time.monotonic()
    print("Loading input...")
    windows = read_windows(args.input_file) if args.crop_mode == LIST else _search(args.input_file)
    with images.plain_errors():
        found = detector.detect_windows(windows)
    print(f"Processed {len(found)} windows in {time.monotonic() - began:.3f} s.")
    save(found, args.output_file)
    print(f"Saved to {args.output_file}.")
    return 0


def read_windows(path: str) -> Windows:
    """The windows (ymin, xmin, ymax, xmax) of each image that a CSV file lists."""
    import numpy as np

    found: dict[str, list[list[float]]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [
                name for name in ("filename", *EDGES) if name not in (reader.fieldnames or ())
            ]
            if missing:
                raise DataError(f"{path}: its first line must name {', '.join(missing)}")
            for row in reader:
                try:
                    window = [float(row[edge]) for edge in EDGES]
                except (TypeError, ValueError):
                    raise DataError(
                        f"{path}:{reader.line_num}: {', '.join(EDGES)} must be numbers"
                    ) from None
                found.setdefault(row["filename"], []).append(window)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if not found:
        raise DataError(f"{path}: there is no window in it")
    return [(name, np.array(windows)) for name, windows in found.items()]


def _search(path: str) -> Windows:
    from .output.proposals import propose

    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: there is no image in it")
    return [(name, propose(images.read_image(name))) for name in names]


def save(found: list[dict[str, Any]], path: str) -> None:
    """Write the windows and their scores as CSV or HDF5."""
    import numpy as np

    names = [each["filename"] for each in found]
    windows = np.array([each["window"] for each in found], np.float64)
    scores = np.array([each["prediction"] for each in found], np.float32)
    try:
        if path.lower().endswith(".csv"):
            _save_csv(path, names, windows, scores.reshape(len(names), -1))
        elif path.lower().endswith((".h5", ".hdf5")):
            _save_hdf5(path, names, windows, scores)
        else:
            raise ConfigError(f"OUTPUT must end in .csv or .h5, got {path!r}")
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror or error}") from None


def _save_csv(path: str, names: list[str], windows: np.ndarray, scores: np.ndarray) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", *EDGES, *(f"class{i}" for i in range(scores.shape[1]))])
        for name, window, row in zip(names, windows.tolist(), scores.tolist(), strict=True):
            writer.writerow([name, *(f"{edge:g}" for edge in window), *(f"{s:g}" for s in row)])


def _save_hdf5(path: str, names: list[str], windows: np.ndarray, scores: np.ndarray) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["filename"] = names
        file["window"] = windows
        file["window"].attrs["columns"] = list(EDGES)
        file["prediction"] = scores
