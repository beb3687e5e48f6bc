"""Pictures of what is in a net, for TensorBoard: tensors of (3, height, width) from 0 to 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...netdef import Net
from ...netdef.description import describe

if TYPE_CHECKING:
    from tensorboard.compat.proto.node_def_pb2 import NodeDef

#: Types of layers whose tops are shown.
ACTIVATIONS = ("Convolution", "Deconvolution")
#: No grid holds more pictures than this.
LIMIT = 64


def is_image(values: Tensor) -> bool:
    """Whether a blob looks like a batch of images: (number, 1 or 3 channels, height, width)."""
    return values.dim() == 4 and values.shape[1] in (1, 3) and min(values.shape[2:]) > 1


def batch(values: Tensor) -> Tensor:
    """A grid of a batch of images, BGR as everywhere, each stretched from black to white."""
    shown = values[:LIMIT].detach().float().cpu()
    if shown.shape[1] == 3:
        shown = shown.flip(1)
    return _grid(shown)


def channels(values: Tensor) -> Tensor:
    """A grid of the channels of one sample, (channels, height, width)."""
    return _grid(values[:LIMIT, None].detach().float().cpu())


def _grid(images: Tensor) -> Tensor:
    # Here, since with torchvision comes torch's compiler: over a second and 180 MB.
    from torchvision.utils import make_grid

    columns = math.ceil(math.sqrt(len(images)))
    return make_grid(images, nrow=columns, padding=1, normalize=True, scale_each=True)


def first_filters(net: Net) -> tuple[str, Tensor] | None:
    """The first layer whose filters can be seen as images, and its filters."""
    for step in net.steps:
        weight = getattr(step.layer, "weight", None)
        if isinstance(weight, Tensor) and is_image(weight):
            return step.name, weight
    return None


def wave(values: Tensor) -> Tensor:
    """The samples of one sound, (1, length), scaled so that they fit from -1 to 1."""
    flat = values.detach().float().cpu().reshape(1, -1)
    return flat / flat.abs().max().clamp(min=1)


def graph(net: Net) -> tuple[Any, Any]:
    """The net as TensorBoard's graph: a node for each layer, with the shapes of its tops."""
    from tensorboard.compat.proto.config_pb2 import RunMetadata
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.versions_pb2 import VersionDef

    nodes = []
    makers: dict[str, str] = {}
    for layer in describe(net).layers:
        nodes.append(_node(layer.name, layer.type, [makers[blob] for blob in layer.bottoms]))
        shapes = nodes[-1].attr["_output_shapes"].list
        for shape in layer.top_shapes:
            added = shapes.shape.add()
            for size in shape:
                added.dim.add(size=size)
        for index, blob in enumerate(layer.tops):
            makers[blob] = f"{layer.name}:{index}" if index else layer.name
    return GraphDef(node=nodes, versions=VersionDef(producer=22)), RunMetadata()


def _node(name: str, kind: str, inputs: list[str]) -> NodeDef:
    from tensorboard.compat.proto.node_def_pb2 import NodeDef

    return NodeDef(name=name, op=kind, input=inputs)
