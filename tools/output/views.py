"""Pictures of nets and their predictions, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...solvers.hooks import pictures
from .curves import save
from .predictions import Confusion, Reason, Sample

#: Up to this many classes the confusion matrix shows its counts, and the names of the classes.
COUNTED, NAMED = 20, 60


def mosaic(axes: Axes, grid: Tensor, title: str) -> None:
    """Show a (3, height, width) picture from 0 to 1."""
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def pictures_in_a_grid(grids: Sequence[tuple[str, Tensor]], path: Path, side: float = 2.5) -> None:
    """Write titled pictures, as square a grid of them as possible."""
    columns = math.ceil(math.sqrt(len(grids)))
    rows = math.ceil(len(grids) / columns)
    figure = Figure(figsize=(side * columns, side * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in every:
        axes.set_axis_off()
    for axes, (title, grid) in zip(every, grids, strict=False):
        mosaic(axes, grid, title)
    save(figure, path)


def image(values: Tensor) -> Tensor:
    """One image as it is shown: BGR to RGB, stretched from black to white."""
    if values.shape[0] not in (1, 3):
        return pictures.channels(values)
    return pictures.batch(values[None])


def confusion(found: Confusion, names: Sequence[str], path: Path) -> None:
    """Draw the matrix; colours are shares of each row."""
    shares = found.counts / found.counts.sum(1, keepdim=True).clamp(min=1)
    side = max(4.0, 0.45 * len(names) + 2) if len(names) <= NAMED else 12.0
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    if len(names) <= NAMED:
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="true", title=f"accuracy {found.accuracy:.2%}")
    if len(names) <= COUNTED:
        for row in places:
            for column in places:
                count = int(found.counts[row, column])
                if count:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour)
    save(figure, path)


def contact_sheet(found: Sequence[Sample], names: Sequence[str], path: Path) -> None:
    """Draw images with what they are, what they were taken for, and how surely."""
    grids = []
    for sample in found:
        best = int(sample.probabilities.argmax())
        share = float(sample.probabilities[best])
        title = f"{names[sample.label]}\ntaken for {names[best]}, {share:.0%}"
        grids.append((title, image(sample.image)))
    pictures_in_a_grid(grids, path, side=1.8)


def reason(found: Reason, names: Sequence[str], path: Path) -> None:
    """Draw the image, and the image under Grad-CAM's map, and the saliency map."""
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    plain, under, saliency = figure.subplots(1, 3)
    shown = image(found.image)
    mosaic(plain, shown, f"{names[found.wanted]}, {found.probability:.1%}")
    mosaic(under, shown, f"Grad-CAM at {found.layer}")
    under.imshow(found.cam.numpy(), cmap="jet", alpha=0.45)
    saliency.imshow(found.saliency.numpy(), cmap="hot")
    saliency.set_title("saliency", fontsize=9)
    saliency.set_axis_off()
    save(figure, path)
