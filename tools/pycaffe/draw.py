"""``caffe.draw``: pictures of nets."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ...netdef.blueprint import load_definition
from ...netdef.state import State, meets
from ...proto import caffe_pb2
from ..output import diagram

_WITH_RATES = ("Convolution", "Deconvolution", "InnerProduct")


def get_layer_lr_mult(layer: caffe_pb2.LayerParameter) -> tuple[float, float]:
    """The learning-rate multipliers of a layer's weights and biases; ValueError if it has none."""
    if layer.type not in _WITH_RATES:
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier")
    rates = [param.lr_mult for param in layer.param][:2]
    weight, bias = rates + [1.0] * (2 - len(rates))
    return weight, bias


def draw_net(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str = "LR",
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """The net as a picture of kind ``ext`` (png, svg, pdf; raw or dot for graphviz's text).

    ``rankdir`` is the direction: LR, RL, TB or BT; ``phase`` leaves out layers of the other one;
    ``display_lrm`` shows learning-rate multipliers.
    """
    drawing = _diagram(caffe_net, phase, display_lrm)
    if ext in ("raw", "dot", "gv"):
        return diagram.to_dot(drawing, rankdir).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net.{ext}"
        diagram.draw(drawing, path, rankdir)
        return path.read_bytes()


def draw_net_to_file(
    caffe_net: caffe_pb2.NetParameter,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the picture of the net to ``filename``; its ending says of which kind it is."""
    path = Path(filename)
    ext = path.suffix.lstrip(".") or "png"
    path.write_bytes(draw_net(caffe_net, rankdir, ext, phase, display_lrm))


def _diagram(net: caffe_pb2.NetParameter, phase: int | None, display_lrm: bool) -> diagram.Diagram:
    layers = [
        layer for layer in load_definition(net).message.layer if phase is None or _in(layer, phase)
    ]
    drawing = diagram.lay_out(layers, {})
    if display_lrm:
        for index, layer in enumerate(layers):
            box = drawing.boxes.get(f"{layer.name}#{index}")
            if box is not None and layer.type in _WITH_RATES:
                weight, bias = get_layer_lr_mult(layer)
                box.lines.append(f"lr mult: {weight:.1f}, {bias:.1f}")
    return drawing


def _in(layer: caffe_pb2.LayerParameter, phase: int) -> bool:
    """Whether the layer's rules say of no phase but ``phase``; levels and stages do not count."""

    def met(rule: caffe_pb2.NetStateRule) -> bool:
        return meets(State(phase), caffe_pb2.NetStateRule(phase=rule.phase))

    included = [rule for rule in layer.include if rule.HasField("phase")]
    if included:
        return any(map(met, included))
    return not any(met(rule) for rule in layer.exclude if rule.HasField("phase"))
