"""From a net definition to a checked plan: layers built, shapes known, nothing allocated.

The steps are pure: choose the layers of the state, connect them, build each layer for the shapes of
its bottoms on the meta device, share parameters. Every fault found on the way is collected, and all
of them are reported together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..layers.base import Arity, Context, Layer, Shape
from ..layers.registry import find
from ..layers.source import DataSource
from ..proto import caffe_pb2
from ..proto.errors import ConfigError, CortadoError, DataError, Fault, LayerError
from ..proto.files import read_net, upgraded
from ..proto.positions import Document
from . import backward, graph
from .parameters import ParamRef, Tie, share_parameters
from .state import LayerSpec, State, effective_layers, parse_phase

#: Caffe counts the elements of a blob in 32 bits.
MAX_ELEMENTS = 2**31 - 1

NetSource = str | Path | caffe_pb2.NetParameter | Document[caffe_pb2.NetParameter]


@dataclass(slots=True)
class Step:
    """One layer in running order: what it consumes and produces, and what follows from that.

    ``detached`` are the indices of bottoms into which no gradient flows; ``losses`` maps the index
    of a top to its non-zero weight in the net's loss; ``dead`` are the blobs nobody needs after it;
    ``views`` are shared parameters that must be seen in another shape in every pass.
    """

    spec: LayerSpec
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    in_place: frozenset[int] = frozenset()
    detached: frozenset[int] = frozenset()
    losses: dict[int, float] = field(default_factory=dict)
    dead: tuple[str, ...] = ()
    needs_backward: bool = False
    views: tuple[Tie, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def type(self) -> str:
        return self.spec.message.type


@dataclass(slots=True)
class SourceStep:
    """One data source: the blobs it feeds."""

    spec: LayerSpec
    source: DataSource
    tops: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def type(self) -> str:
        return self.spec.message.type

    @property
    def top_shapes(self) -> tuple[Shape, ...]:
        return self.source.shapes


@dataclass(slots=True)
class Blueprint:
    """A net checked as a whole; its parameters still live on the meta device."""

    message: caffe_pb2.NetParameter
    state: State
    wires: list[graph.Wire]
    steps: list[Step]
    sources: list[SourceStep]
    params: list[ParamRef]
    ties: list[Tie]
    outputs: list[str]
    blob_shapes: dict[str, Shape]


def load_definition(source: NetSource) -> Document[caffe_pb2.NetParameter]:
    """The net definition in its current form, from a file, a message or a document."""
    if isinstance(source, caffe_pb2.NetParameter):
        source = Document(source)
    return upgraded(source) if isinstance(source, Document) else read_net(source)


def draw(
    source: NetSource, phase: str | int, level: int = 0, stages: Iterable[str] = ()
) -> Blueprint:
    """Plan the net that ``source`` defines for a phase, level and stages.

    Raises ConfigError with every independent fault, or the data source's own error if only data
    is at fault.
    """
    document = load_definition(source)
    state = State(parse_phase(phase), level, frozenset(stages))
    faults: list[Fault] = []
    specs = effective_layers(document, state, faults)
    wires = graph.connect(specs, faults)
    builder = _Builder(document.message, faults)
    for wire in wires:
        builder.add(wire)
    modules = [(step.spec, step.layer) for step in builder.steps]
    force = document.message.force_backward
    params, ties = share_parameters(modules, force, faults)
    if faults:
        raise ConfigError(faults)
    if builder.data_errors:
        raise builder.data_errors[0]
    outputs = graph.outputs(wires)
    dead = dict(zip((w.name for w in wires), graph.last_uses(wires, outputs), strict=True))
    for step in builder.steps:
        step.dead = tuple(dead[step.name])
        step.views = tuple(tie for tie in ties if tie.module is step.layer and tie.reshapes)
    fed = [top for source in builder.sources for top in source.tops]
    backward.mark(builder.steps, fed, force)
    return Blueprint(
        document.message,
        state,
        wires,
        builder.steps,
        builder.sources,
        params,
        ties,
        outputs,
        {name: tuple(blob.shape) for name, blob in builder.blobs.items()},
    )


class _Builder:
    """Builds layers in order, carrying meta tensors from top to bottom."""

    def __init__(self, net: caffe_pb2.NetParameter, faults: list[Fault]) -> None:
        self.net = net
        self.faults = faults
        self.data_errors: list[CortadoError] = []
        self.blobs: dict[str, Tensor] = {}
        self.steps: list[Step] = []
        self.sources: list[SourceStep] = []

    def add(self, wire: graph.Wire) -> None:
        """Build the wire's layer and note the shapes of its tops; faults are collected."""
        spec = wire.spec
        for top in wire.tops:  # a top that fails to appear must not keep an older blob's shape
            if top not in wire.bottoms:
                self.blobs.pop(top, None)
        try:
            cls = find(spec.message.type)
            self._check_arity(cls, wire)
            if wire.broken or any(blob not in self.blobs for blob in wire.bottoms):
                self._forget(wire)
                return  # the fault upstream is already reported
            bottoms = [self.blobs[blob] for blob in wire.bottoms]
            context = Context(
                tuple(tuple(blob.shape) for blob in bottoms),
                len(wire.tops),
                spec.message.phase,
                bool(wire.in_place),
            )
            if issubclass(cls, DataSource):
                self._add_source(wire, cls, context)
            else:
                self._add_layer(wire, cls, context, bottoms)
        except LayerError as error:
            self.faults.append(spec.fault(str(error), error.field))
            self._forget(wire)
        except DataError as error:
            place = f"{spec.location()}: " if spec.location() else ""
            self.data_errors.append(type(error)(f"{place}layer {spec.name!r}: {error}"))
            self._forget(wire)

    def _forget(self, wire: graph.Wire) -> None:
        for top in wire.tops:
            self.blobs.pop(top, None)

    def _check_arity(self, cls: type[Layer] | type[DataSource], wire: graph.Wire) -> None:
        for kind, names, arity in (
            ("bottom", wire.bottoms, cls.bottoms),
            ("top", wire.tops, cls.tops),
        ):
            if len(names) not in arity:
                raise LayerError(_arity_message(cls.type, kind, len(names), arity), kind)

    def _add_source(self, wire: graph.Wire, cls: type[DataSource], context: Context) -> None:
        source = cls.from_message(wire.spec.message, context)
        self._set_tops(wire, [torch.empty(shape, device="meta") for shape in source.shapes])
        self.sources.append(SourceStep(wire.spec, source, tuple(wire.tops)))

    def _add_layer(
        self, wire: graph.Wire, cls: type[Layer], context: Context, bottoms: list[Tensor]
    ) -> None:
        spec = wire.spec
        try:
            layer = cls.from_message(spec.message, context)
            layer.train(spec.message.phase == caffe_pb2.TRAIN)
            tops = layer.infer(bottoms)
        except LayerError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(str(list(shape)) for shape in context.shapes)
            first_line = str(error).partition("\n")[0]
            raise LayerError(f"cannot work on bottoms of shape {shapes}: {first_line}") from error
        self._set_tops(wire, tops)
        step = Step(
            spec,
            layer,
            tuple(wire.bottoms),
            tuple(wire.tops),
            context.shapes,
            tuple(tuple(top.shape) for top in tops),
            wire.in_place,
        )
        step.losses = self._loss_weights(step)
        self.steps.append(step)
        layer.requires_grad_(False)  # share_parameters opens those that learn
        self._check_propagate_down(step)

    def _set_tops(self, wire: graph.Wire, tops: Iterable[Tensor]) -> None:
        for index, (name, blob) in enumerate(zip(wire.tops, tops, strict=True)):
            shape = list(blob.shape)
            if blob.numel() > MAX_ELEMENTS:
                raise LayerError(
                    f"top {name!r} would have shape {shape}: {blob.numel():,} elements, "
                    f"more than the {MAX_ELEMENTS:,} a blob can hold",
                    f"top.{index}",
                )
            if blob.numel() == 0:
                raise LayerError(f"top {name!r} would be empty: shape {shape}", f"top.{index}")
            self.blobs[name] = blob

    def _loss_weights(self, step: Step) -> dict[int, float]:
        given = list(step.spec.message.loss_weight)
        if given and len(given) != len(step.tops):
            raise LayerError(
                f"loss_weight must be given once for each of the {len(step.tops)} tops "
                f"or not at all, got {len(given)}",
                "loss_weight",
            )
        weights = given or [step.layer.default_loss_weight] + [0.0] * (len(step.tops) - 1)
        return {index: weight for index, weight in enumerate(weights) if weight and step.tops}

    def _check_propagate_down(self, step: Step) -> None:
        given = step.spec.message.propagate_down
        if given and len(given) != len(step.bottoms):
            raise LayerError(
                f"propagate_down must be given once for each of the {len(step.bottoms)} bottoms "
                f"or not at all, got {len(given)}",
                "propagate_down",
            )


def _arity_message(layer_type: str, kind: str, count: int, arity: Arity) -> str:
    plural = "" if str(arity) == "1" else "s"
    return f"{layer_type} must have {arity} {kind}{plural}, got {count}"
