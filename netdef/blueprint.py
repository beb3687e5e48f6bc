"""From a net definition to a checked plan: layers built, shapes known, nothing allocated.

The steps are pure: choose the layers of the state, connect them, build each layer for the shapes of
its bottoms on the meta device, share parameters. Every fault found on the way is collected, and all
of them are reported together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..layers.base import Shape
from ..layers.imports import import_named
from ..proto import caffe_pb2
from ..proto.errors import ConfigError, Fault
from ..proto.files import Variables, read_net, upgraded
from ..proto.positions import Document
from . import backward, graph, labels
from .builder import Builder
from .parameters import ParamRef, Tie, share_parameters
from .state import State, effective_layers, misread, parse_phase
from .steps import SourceStep, Step

NetSource = str | Path | caffe_pb2.NetParameter | Document[caffe_pb2.NetParameter]


@dataclass(slots=True)
class Blueprint:
    """A net checked as a whole; its parameters still live on the meta device."""

    message: caffe_pb2.NetParameter
    state: State
    order: list[Step | SourceStep]
    params: list[ParamRef]
    ties: list[Tie]
    outputs: list[str]
    blob_shapes: dict[str, Shape]
    warnings: list[Fault]

    @property
    def steps(self) -> list[Step]:
        """The layers that compute, in running order."""
        return [each for each in self.order if isinstance(each, Step)]

    @property
    def sources(self) -> list[SourceStep]:
        """The layers that feed the net."""
        return [each for each in self.order if isinstance(each, SourceStep)]


def load_definition(
    source: NetSource, variables: Variables | None = None
) -> Document[caffe_pb2.NetParameter]:
    """The net definition in its current form, from a file, a message or a document."""
    if isinstance(source, caffe_pb2.NetParameter):
        source = Document(source)
    return upgraded(source) if isinstance(source, Document) else read_net(source, variables)


def draw(
    source: NetSource,
    phase: str | int,
    level: int = 0,
    stages: Iterable[str] = (),
    variables: Variables | None = None,
) -> Blueprint:
    """Plan the net that ``source`` defines for a phase, level and stages.

    ``variables`` are values for the variables of a file in the short form.

    Raises ConfigError with every independent fault, or the data source's own error if only data
    is at fault.
    """
    faults: list[Fault] = []
    try:
        document = load_definition(source, variables)
    except ConfigError as error:
        if error.partial is None:
            raise
        document = error.partial
        faults += error.faults
    import_named(document)
    state = State(parse_phase(phase), level, frozenset(stages))
    unclear = misread(document, faults)
    wires = graph.connect(effective_layers(document, state, faults), faults, unclear)
    builder = Builder(faults, document.message.caffe_quirks)
    for wire in wires:
        builder.add(wire)
    steps = [each for each in builder.order if isinstance(each, Step)]
    force = document.message.force_backward
    params, ties = share_parameters(steps, force, faults)
    warnings = _check_names(builder.order, faults)
    if faults:
        faults.sort(key=lambda fault: fault.place)
        raise ConfigError(faults) from (builder.errors[0] if builder.errors else None)
    if builder.data_errors:
        raise builder.data_errors[0]
    plan = Blueprint(
        document.message,
        state,
        builder.order,
        params,
        ties,
        graph.outputs(builder.wires),
        {name: tuple(blob.shape) for name, blob in builder.blobs.items()},
        warnings,
    )
    _finish(plan, builder.wires)
    return plan


def _finish(plan: Blueprint, wires: Sequence[graph.Wire]) -> None:
    """Tell each step what follows from its place: blobs to free, views to take, gradients."""
    last_uses = graph.last_uses(wires, plan.outputs)
    for each, dead in zip(plan.order, last_uses, strict=True):
        if isinstance(each, Step):
            each.dead = tuple(dead)
            each.views = tuple(t for t in plan.ties if t.module is each.layer and t.reshapes)
    fed = [top for source in plan.sources for top in source.tops]
    backward.mark(plan.steps, fed, plan.message.force_backward)
    labels.announce(plan.sources, plan.steps)


def _check_names(order: Sequence[Step | SourceStep], faults: list[Fault]) -> list[Fault]:
    """Refuse two layers of one name if weights go by that name; else it is only a warning.

    Caffe takes such nets, its own autoencoder example among them.
    """
    warnings: list[Fault] = []
    first: dict[str, Step | SourceStep] = {}
    for each in order:
        other = first.setdefault(each.name, each)
        if other is not each:
            fault = each.spec.fault(
                "another layer in this phase has the same name",
                "name",
                ("the first one is here", other.spec),
            )
            with_blobs = (isinstance(s, Step) and s.layer.blobs for s in (each, other))
            (faults if any(with_blobs) else warnings).append(fault)
    return warnings
