"""A net as its log shows it: every layer with its splits, shapes, memory and gradients.

Plain values, so that they travel in events and as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..layers.base import Shape
from ..proto import caffe_pb2
from .memory import BYTES_PER_ELEMENT
from .splits import insert_splits
from .steps import SourceStep, Step

if TYPE_CHECKING:
    from .net import Net


@dataclass(frozen=True, slots=True)
class SharedParameter:
    """A parameter blob that an earlier layer owns."""

    name: str
    owner: str
    index: int


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """One layer; ``bytes`` is the memory of all tops up to and with its own, as Caffe counts it:
    a blob rewritten in place counts again, and so does each copy that a split makes."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    top_shapes: tuple[Shape, ...]
    loss_weights: tuple[float, ...]
    bytes: int
    shared: tuple[SharedParameter, ...]
    needs_backward: bool


@dataclass(frozen=True, slots=True)
class NetDescription:
    """The layers of a net in running order, Caffe's splits among them, and its outputs."""

    name: str
    layers: tuple[BuiltLayer, ...]
    outputs: tuple[str, ...]


def describe(net: Net) -> NetDescription:
    """What the net looks like once it is built."""
    steps = net.order
    with_splits = insert_splits([step.spec.message for step in steps])
    shared = _shared(net)
    layers: list[BuiltLayer] = []
    total = 0
    source = -1
    for message, index in with_splits:
        if index is not None:
            source = index
            step = steps[index]
            shapes, weights = step.top_shapes, _loss_weights(step, message)
            backward = isinstance(step, Step) and step.needs_backward
            ties = shared.get(index, ())
        else:
            # A split follows the layer whose top it copies.
            step = steps[source]
            top = step.tops.index(message.bottom[0])
            shapes = (step.top_shapes[top],) * len(message.top)
            weights = tuple(message.loss_weight) or (0.0,) * len(message.top)
            backward = _is_wanted(steps, source, step.tops[top])
            ties = ()
        total += sum(map(math.prod, shapes)) * BYTES_PER_ELEMENT
        layers.append(
            BuiltLayer(
                message.name, message.type, tuple(message.bottom), tuple(message.top),
                shapes, weights, total, ties, backward,
            )
        )  # fmt: skip
    return NetDescription(net.name, tuple(layers), tuple(net.outputs))


def _loss_weights(step: Step | SourceStep, message: caffe_pb2.LayerParameter) -> tuple[float, ...]:
    """The weight of each top; 0 for one whose split carries the weight instead."""
    if isinstance(step, SourceStep):
        return (0.0,) * len(step.tops)
    carried = bool(step.spec.message.loss_weight) and not message.loss_weight
    return tuple(0.0 if carried else step.losses.get(top, 0.0) for top in range(len(step.tops)))


def _is_wanted(steps: Sequence[Step | SourceStep], producer: int, blob: str) -> bool:
    """Whether gradients flow into ``blob`` from those that read it before it is rewritten."""
    made_by = steps[producer]
    if not isinstance(made_by, Step) or not made_by.needs_backward:
        return False
    for step in steps[producer + 1 :]:
        if isinstance(step, Step) and step.needs_backward:
            readers = (i for i, bottom in enumerate(step.bottoms) if bottom == blob)
            if any(index not in step.detached for index in readers):
                return True
        if blob in step.tops:
            break
    return False


def _shared(net: Net) -> dict[int, tuple[SharedParameter, ...]]:
    """The parameters that each step sees of another layer, by the step's index."""
    places = {
        id(step.layer): (index, step)
        for index, step in enumerate(net.order)
        if isinstance(step, Step)
    }
    found: dict[int, tuple[SharedParameter, ...]] = {}
    for tie in net.ties:
        index, step = places[id(tie.module)]
        _, owner = places[id(tie.owner)]
        names = [blob.name for blob in step.layer.blobs]
        parameter = step.spec.message.param[names.index(tie.attribute)].name
        own = [blob.name for blob in owner.layer.blobs].index(tie.owner_attribute)
        found[index] = (*found.get(index, ()), SharedParameter(parameter, owner.name, own))
    return found
