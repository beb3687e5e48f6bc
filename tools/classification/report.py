"""What eval prints and writes: tables, JSON, a line for each image, a picture."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...layers.data.preprocessing import Views
from ...proto.atomic import write_atomically
from ...proto.errors import ConfigError, ResourceError
from ...proto.preprocessing import summary
from ..check import aligned
from .measures import Measures, Verdict
from .model import Model

PICTURES = (".png", ".svg", ".pdf")
#: Bad samples that are printed; --json has them all.
SHOWN_BAD = 5


def check_targets(args: argparse.Namespace) -> None:
    """Refuse, before anything is computed, files that could not be written."""
    for flag in ("confusion", "json", "csv"):
        path = getattr(args, flag)
        if path and not Path(path).parent.is_dir():
            raise ConfigError(f"--{flag} {path}: there is no folder {Path(path).parent}")
    if args.confusion and Path(args.confusion).suffix not in PICTURES:
        raise ConfigError(f"--confusion {args.confusion}: must end in {', '.join(PICTURES)}")


def heading(model: Model, views: Views) -> list[str]:
    """What is evaluated, and how its images are prepared."""
    with_weights = "" if str(model.weights) == model.name else f" with {model.weights}"
    how = "ten crops" if views.crops == 10 else "image and mirror image" if views.flip else "centre"
    return [
        f"{model.name}{with_weights}, {len(model.names)} classes",
        f"preprocessing (from {model.origin}): {summary(model.preprocessing.to_message())}; {how}",
    ]


def text(measures: Measures, model: Model, seconds: float, rows: int) -> str:
    """The results as a page of text."""
    top = f"top-{measures.top}"
    parts = [
        f"top-1 {measures.share(measures.right):.2%}  "
        f"{top} {measures.share(measures.among_top):.2%}  loss {measures.loss:.4f}",
        f"{measures.count:,} images in {seconds:.1f} s: {measures.count / seconds:,.0f} images/s",
    ]
    classes = measures.accuracies()
    shown = classes if len(classes) <= 2 * rows else classes[:rows]
    title = "class" if shown is classes else f"the {rows} worst of {len(classes)} classes"
    table = [(title, "images", "top-1", top)]
    table += [
        (model.names[number], f"{images:,}", f"{one:.2%}", f"{best:.2%}")
        for number, images, one, best in shown
    ]
    parts += ["", aligned(table, right=(1, 2, 3))]
    if confused := measures.confused(rows):
        pairs = [("most confused", "taken for", "times")]
        pairs += [(model.names[a], model.names[b], f"{times:,}") for a, b, times in confused]
        parts += ["", aligned(pairs, right=(2,))]
    if measures.bad:
        parts += ["", f"left out: {len(measures.bad):,} images that could not be used"]
        parts += [f"  {key}: {reason}" for key, reason in measures.bad[:SHOWN_BAD]]
        if len(measures.bad) > SHOWN_BAD:
            parts.append(f"  and {len(measures.bad) - SHOWN_BAD:,} more (--json lists all)")
    return "\n".join(parts)


def write(
    args: argparse.Namespace, measures: Measures, model: Model, views: Views, seconds: float
) -> None:
    """The files that the flags ask for."""
    if args.json:
        content = document(args.data, measures, model, views, seconds)
        _write(args.json, json.dumps(content, indent=2) + "\n")
        print(f"wrote {args.json}")
    if args.csv:
        print(f"wrote {args.csv}")
    if args.confusion:
        from ..output import views as drawing
        from ..output.predictions import Confusion

        drawing.confusion(Confusion(measures.matrix()), model.names, Path(args.confusion))
        print(f"wrote {args.confusion}")


def document(
    data: str, measures: Measures, model: Model, views: Views, seconds: float
) -> dict[str, Any]:
    """The results for machines."""
    return {
        "model": model.name,
        "weights": str(model.weights),
        "data": data,
        "preprocessing": summary(model.preprocessing.to_message()),
        "preprocessing_from": model.origin,
        "crops": views.crops,
        "flip": views.flip,
        "seconds": seconds,
        "images_per_second": measures.count / seconds,
        **measures.as_dict(model.names),
    }


def _write(path: str, content: str) -> None:
    try:
        with write_atomically(path) as file:
            file.write(content.encode())
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror}") from None


@contextmanager
def csv_file(path: str, model: Model) -> Iterator[Callable[[Verdict], None] | None]:
    """A function that writes a sample's line to ``path``; None without a path."""
    if not path:
        yield None
        return
    try:
        file = open(path, "w", newline="", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    except OSError as error:
        raise ResourceError(f"--csv {path}: {error.strerror}") from None
    with file:
        rows = csv.writer(file)
        rows.writerow(("key", "class", "predicted", "probability", "rank", "loss"))

        def note(found: Verdict) -> None:
            names = (model.names[found.label], model.names[found.predicted])
            figures = (f"{found.probability:.6g}", found.rank, f"{found.loss:.6g}")
            rows.writerow((found.key, *names, *figures))

        yield note
