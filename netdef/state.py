"""Which layers of a net definition belong to a phase, level and set of stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from ..proto import caffe_pb2
from ..proto.errors import ConfigError, Fault, Location, nearest
from ..proto.positions import Document, Node


@dataclass(frozen=True, slots=True)
class State:
    """What the rules of a layer are held against."""

    phase: int
    level: int = 0
    stages: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer's message, in effect for a state, and where it stands in its file."""

    message: caffe_pb2.LayerParameter
    node: Node | None = None

    @property
    def name(self) -> str:
        return self.message.name

    def location(self, path: str = "") -> Location | None:
        """The place of the field at dotted ``path``, or of the layer itself."""
        return self.node.find(path).location if self.node else None

    def fault(self, message: str, path: str = "", *others: tuple[str, LayerSpec]) -> Fault:
        """A fault of this layer; ``others`` are notes about further layers involved."""
        related = tuple(
            (note, place) for note, other in others if (place := other.location()) is not None
        )
        return Fault(f"layer {self.name!r}: {message}", self.location(path), related)


def parse_phase(phase: str | int) -> int:
    """The number of a phase given by number or by name."""
    if isinstance(phase, str):
        names = list(caffe_pb2.Phase.keys())
        if phase.upper() not in names:
            raise ConfigError(f"phase must be TRAIN or TEST, got {phase!r}{nearest(phase, names)}")
        return caffe_pb2.Phase.Value(phase.upper())
    return int(phase)


def meets(state: State, rule: caffe_pb2.NetStateRule) -> bool:
    """Whether every condition that ``rule`` states holds for ``state``."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    return state.stages.issuperset(rule.stage) and state.stages.isdisjoint(rule.not_stage)


def _any_met(state: State, rules: Iterable[caffe_pb2.NetStateRule]) -> bool:
    return any(meets(state, rule) for rule in rules)


def belongs(state: State, layer: caffe_pb2.LayerParameter) -> bool:
    """Whether a layer is part of the net in ``state``: with `include` rules if any of them is met,
    otherwise unless an `exclude` rule is."""
    if layer.include:
        return _any_met(state, layer.include)
    return not _any_met(state, layer.exclude)


def effective_layers(
    document: Document[caffe_pb2.NetParameter], state: State, faults: list[Fault]
) -> Sequence[LayerSpec]:
    """The layers of ``document`` that are part of the net in ``state``, each with its phase set."""
    kept = []
    for message, node in zip(document.message.layer, document.nodes("layer"), strict=True):
        spec = LayerSpec(message, node)
        if message.include and message.exclude:
            faults.append(
                spec.fault("has both include and exclude rules; give only one kind", "exclude")
            )
        elif belongs(state, message):
            own = caffe_pb2.LayerParameter()
            own.CopyFrom(message)
            if not own.HasField("phase"):
                own.phase = cast("caffe_pb2.Phase", state.phase)
            kept.append(LayerSpec(own, node))
    return kept


def misread(document: Document[caffe_pb2.NetParameter], faults: Sequence[Fault]) -> list[Node]:
    """The nodes of the layers within whose text ``faults`` lie."""
    nodes = [node for node in document.nodes("layer") if node is not None]
    found = []
    for fault in faults:
        place = fault.location
        before = [
            node
            for node in nodes
            if place is not None
            and node.source is place.source
            and (node.line, node.column) <= (place.line, place.column)
        ]
        found += before[-1:]
    return found
