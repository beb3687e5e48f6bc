"""A picture of a net: layers as boxes, blobs as arrows."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...proto import caffe_pb2
from .curves import DPI, save

_COLOURS = {
    "data": "#d9ead3",
    "weights": "#cfe2f3",
    "loss": "#f4cccc",
    "other": "#eeeeee",
}


@dataclass(slots=True)
class Box:
    """A layer and the layers that rewrite its top in place; ``depth`` is its distance from data."""

    name: str
    lines: list[str]
    kind: str
    depth: int = 0


@dataclass(slots=True)
class Diagram:
    """Boxes by name, and arrows from box to box with the blob each carries."""

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)


def lay_out(
    layers: Iterable[caffe_pb2.LayerParameter], shapes: Mapping[str, tuple[int, ...]]
) -> Diagram:
    """The diagram of ``layers`` in their order; ``shapes`` are those of blobs, as far as known."""
    diagram = Diagram()
    producers: dict[str, list[str]] = {}
    for index, layer in enumerate(layers):
        in_place = set(layer.top) & set(layer.bottom)
        label = f"{layer.name} ({layer.type})"
        if in_place and len(layer.bottom) == 1:
            for name in producers.get(layer.bottom[0], []):
                diagram.boxes[name].lines.append(f"+ {label}")
            continue
        box = Box(f"{layer.name}#{index}", [label, *_details(layer)], _kind(layer))
        for blob in layer.bottom:
            for producer in producers.get(blob, []):
                diagram.arrows.append((producer, box.name, blob))
                box.depth = max(box.depth, diagram.boxes[producer].depth + 1)
        for blob in layer.top:
            if blob in shapes:
                box.lines.append(f"{blob}: {'x'.join(map(str, shapes[blob])) or '1'}")
            # The same blob from layers of different phases: every one of them is a producer.
            earlier = producers.get(blob, []) if not layer.bottom else []
            producers[blob] = [*earlier, box.name]
        diagram.boxes[box.name] = box
    return diagram


def _kind(layer: caffe_pb2.LayerParameter) -> str:
    if not layer.bottom:
        return "data"
    if layer.type.endswith("Loss") or layer.type == "Accuracy":
        return "loss"
    return "weights" if layer.type in ("Convolution", "Deconvolution", "InnerProduct") else "other"


def _details(layer: caffe_pb2.LayerParameter) -> list[str]:
    """Sizes worth showing of a convolution, pooling or inner product."""
    parts = []
    for name in ("convolution_param", "pooling_param", "inner_product_param"):
        if not layer.HasField(name):
            continue
        message = getattr(layer, name)
        for title in ("num_output", "kernel_size", "stride", "pad"):
            value: Any = getattr(message, title, None)
            if hasattr(value, "__len__"):
                value = "x".join(map(str, value))
            if value and (title == "num_output" or message.ListFields()):
                parts.append(f"{title} {value}")
    return [", ".join(parts)] if parts else []


def to_dot(diagram: Diagram, rankdir: str) -> str:
    """The diagram in graphviz's language."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    lines = ["digraph net {", f"  rankdir={rankdir};", "  node [shape=box, style=filled];"]
    for box in diagram.boxes.values():
        label, colour = quoted("\n".join(box.lines)), quoted(_COLOURS[box.kind])
        lines.append(f"  {quoted(box.name)} [label={label}, fillcolor={colour}];")
    for start, end, blob in diagram.arrows:
        lines.append(f"  {quoted(start)} -> {quoted(end)} [label={quoted(blob)}];")
    return "\n".join([*lines, "}\n"])


def draw(diagram: Diagram, path: str | Path, rankdir: str = "LR") -> None:
    """Write the picture to ``path``: graphviz's text for .dot and .gv, else an image.

    The image comes from graphviz's ``dot`` where that is installed, else from a plain drawing.
    """
    path = Path(path)
    if path.suffix in (".dot", ".gv"):
        path.write_text(to_dot(diagram, rankdir), encoding="utf-8")
        return
    program = shutil.which("dot")
    if program is None:
        _plain(diagram, path, horizontal=rankdir in ("LR", "RL"))
        return
    command = [program, f"-T{path.suffix.lstrip('.')}", "-o", str(path)]
    subprocess.run(command, input=to_dot(diagram, rankdir), text=True, check=True)  # noqa: S603


def _plain(diagram: Diagram, path: Path, horizontal: bool) -> None:
    from matplotlib.figure import Figure

    places = _places(diagram)
    width = max((x for x, _ in places.values()), default=0) + 1
    height = max((y for _, y in places.values()), default=0) + 1
    step = (2.1, 1.1) if horizontal else (1.15, 2.6)
    size = (
        (width * step[0], height * step[1]) if horizontal else (height * step[1], width * step[0])
    )
    figure = Figure(figsize=size, dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    spots = {
        name: (x * step[0], -y * step[1]) if horizontal else (y * step[1], -x * step[0])
        for name, (x, y) in places.items()
    }
    xs, ys = [x for x, _ in spots.values()], [y for _, y in spots.values()]
    axes.set_xlim(min(xs, default=0) - step[0] / 2, max(xs, default=0) + step[0] / 2)
    axes.set_ylim(min(ys, default=0) - step[1] / 2, max(ys, default=0) + step[1] / 2)
    texts = {}
    for box in diagram.boxes.values():
        x, y = spots[box.name]
        style = {"boxstyle": "round,pad=0.4", "facecolor": _COLOURS[box.kind], "edgecolor": "#888"}
        text = "\n".join(box.lines)
        texts[box.name] = axes.text(
            x, y, text, ha="center", va="center", fontsize=7, bbox=style, zorder=2
        )
    figure.draw_without_rendering()  # gives the boxes their places, at which arrows begin and end
    for start, end, _ in diagram.arrows:
        patches = (texts[start].get_bbox_patch(), texts[end].get_bbox_patch())
        arrow: dict[str, Any] = dict(zip(("patchA", "patchB"), patches, strict=True))
        arrow |= {"arrowstyle": "-|>", "color": "#666", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=spots[end], xytext=spots[start], arrowprops=arrow, zorder=1)
    save(figure, path)


def _places(diagram: Diagram) -> dict[str, tuple[int, int]]:
    """A column (depth) and a row for each box; boxes of one depth stand below one another."""
    rows: dict[int, int] = {}
    places = {}
    for name, box in diagram.boxes.items():
        places[name] = (box.depth, rows.get(box.depth, 0))
        rows[box.depth] = rows.get(box.depth, 0) + 1
    return places
