"""List the layers of a net as it is written: one line each, without building it.

Columns: name, type, parameters (name, xRATE, DxDECAY where they are not 1), bottoms -> tops, and
the arguments of convolution and pooling as KERNEL/STRIDE+PAD OUTPUTS/GROUP. On a terminal each
blob has its colour; tops that nobody reads are underlined, bottoms that nobody makes are red.

example:
  cortado summarize examples/mnist/lenet_train_test.prototxt
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .flags import at_least

if TYPE_CHECKING:
    from rich.text import Text

    from ..proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec

_COLOURS = ("green", "yellow", "blue", "magenta", "cyan", "bright_green", "bright_blue", "white")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filename", metavar="FILE", help="net prototxt")
    parser.add_argument(
        "--max_width", "-w", type=at_least(1), default=30, help="width of a column (default 30)"
    )


def run(args: argparse.Namespace) -> int:
    from ..proto.files import read_net

    print_table(rows(read_net(args.filename).message), args.max_width)
    return 0


def rows(net: NetParameter) -> list[list[Text]]:
    """One row of seven cells a layer."""
    from rich.text import Text

    unread: set[str] = set()
    for layer in net.layer:
        unread |= set(layer.top)
        unread -= set(layer.bottom)
    colours: dict[str, str] = {}
    table = []
    for layer in net.layer:
        bottoms = [Text(name, colours.get(name, "white on red")) for name in layer.bottom]
        tops = []
        for index, name in enumerate(layer.top):
            colour = colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])
            weight = f"{layer.loss_weight[index]:g} * " if index < len(layer.loss_weight) else ""
            style = f"bold underline {colour}" if name in unread else colour
            tops.append(Text(weight).append(name, style))
        kind = layer.type
        if kind == "Python":
            kind = f"{layer.python_param.module}.{layer.python_param.layer}"
        table.append(
            [
                Text(layer.name),
                Text(kind),
                Text(_parameters(layer)),
                Text(", ").join(bottoms),
                Text("->"),
                Text(", ").join(tops),
                Text(_arguments(layer)),
            ]
        )
    return table


def _parameters(layer: LayerParameter) -> str:
    specs = [_spec(each) for each in layer.param]
    return f"({', '.join(specs)})" if any(specs) else ""


def _spec(spec: ParamSpec) -> str:
    parts = [spec.name]
    parts.append(f"x{spec.lr_mult:g}" if spec.lr_mult != 1 else "")
    parts.append(f"Dx{spec.decay_mult:g}" if spec.decay_mult != 1 else "")
    return " ".join(part for part in parts if part)


def _arguments(layer: LayerParameter) -> str:
    """Size, stride, padding and outputs of a layer that slides over its bottom."""
    message: Any
    if layer.type in ("Convolution", "Deconvolution"):
        message = layer.convolution_param
        outputs = f" {message.num_output}"
        outputs += f"/{message.group}" if message.group != 1 else ""
    elif layer.type == "Pooling":
        if layer.pooling_param.global_pooling:
            return "global"
        message, outputs = layer.pooling_param, ""
    else:
        return ""
    text = _sizes(message, "kernel_size", "kernel_h", "kernel_w")
    stride = _sizes(message, "stride", "stride_h", "stride_w")
    pad = _sizes(message, "pad", "pad_h", "pad_w")
    text += f"/{stride}" if stride not in ("", "1") else ""
    text += f"+{pad}" if pad not in ("", "0") else ""
    return text + outputs


def _sizes(message: Any, both: str, height: str, width: str) -> str:
    if message.HasField(height) or message.HasField(width):
        return f"{getattr(message, height)}x{getattr(message, width)}"
    value = getattr(message, both)
    return str(value) if isinstance(value, int) else "x".join(map(str, value))


def print_table(table: list[list[Text]], max_width: int) -> None:
    """Columns as narrow as they can be, at most ``max_width``; what is longer runs over, and the
    columns after it go on where they belong as soon as they can."""
    from rich.console import Console
    from rich.text import Text

    if not table:
        return
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    widths = [
        min(max_width, 1 + max(row[column].cell_len for row in table))
        for column in range(len(table[0]))
    ]
    for row in table:
        line, edge = Text(), 0
        for cell, width in zip(row, widths, strict=True):
            edge += width
            line = line.append(cell).append(" ")
            line.append(" " * max(edge - line.cell_len, 0))
        line.rstrip()
        console.print(line)
