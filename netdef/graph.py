"""Which layer feeds which: blobs followed from top to bottom, faults found before building.

Layers run in the order of the file. A layer whose top carries the name of its bottom works in
place: later layers of that name see its result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..proto.errors import Fault, nearest
from ..proto.positions import Node
from .state import LayerSpec


@dataclass(frozen=True, slots=True)
class Wire:
    """One layer in its place: ``in_place`` holds the indices of tops that reuse a bottom's name.

    ``broken`` says that a bottom is missing, so that the layer's shapes cannot be known;
    ``automatic`` are tops that the layer gets although its prototxt does not name them.
    """

    spec: LayerSpec
    in_place: frozenset[int] = frozenset()
    broken: bool = False
    automatic: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def bottoms(self) -> Sequence[str]:
        return self.spec.message.bottom

    @property
    def tops(self) -> Sequence[str]:
        return [*self.spec.message.top, *self.automatic]


def connect(
    specs: Sequence[LayerSpec], faults: list[Fault], misread: Collection[Node] = ()
) -> list[Wire]:
    """Check names and connections; one wire a layer, in running order.

    ``misread`` are the nodes of layers whose text is at fault: they count as broken.
    """
    if not specs:
        faults.append(Fault("the net has no layers in this phase, level and stages"))
    producers: dict[str, LayerSpec] = {}
    all_tops = {top for spec in specs for top in spec.message.top}
    wires = []
    for spec in specs:
        broken = spec.node in misread
        for index, blob in enumerate(spec.message.bottom):
            if blob not in producers:
                broken = True
                faults.append(_missing_bottom(spec, index, specs, all_tops))
        bottoms = list(spec.message.bottom)
        in_place = set()
        for index, blob in enumerate(spec.message.top):
            if index < len(bottoms) and bottoms[index] == blob:
                in_place.add(index)
            elif blob in producers or blob in spec.message.top[:index]:
                first = producers.get(blob, spec)
                faults.append(
                    spec.fault(
                        f"top {blob!r} is already produced by layer {first.name!r}; "
                        "give it another name, or the index of that bottom to work in place",
                        f"top.{index}",
                        ("first produced here", first),
                    )
                )
        for blob in spec.message.top:
            producers[blob] = spec
        wires.append(Wire(spec, frozenset(in_place), broken))
    return wires


def outputs(wires: Sequence[Wire]) -> list[str]:
    """The blobs that no layer consumes, in alphabetical order (as Caffe prints them)."""
    available: set[str] = set()
    for wire in wires:
        available.difference_update(wire.bottoms)
        available.update(wire.spec.message.top)
    return sorted(available)


def last_uses(wires: Sequence[Wire], kept: Sequence[str]) -> list[list[str]]:
    """For each wire the blobs that nobody needs once it has run; ``kept`` ones are never named."""
    final: dict[str, int] = {}
    for index, wire in enumerate(wires):
        for blob in (*wire.bottoms, *wire.tops):
            final[blob] = index
    dead: list[list[str]] = [[] for _ in wires]
    for blob, index in final.items():
        if blob not in kept:
            dead[index].append(blob)
    return dead


def _missing_bottom(
    spec: LayerSpec, index: int, specs: Sequence[LayerSpec], all_tops: set[str]
) -> Fault:
    blob = spec.message.bottom[index]
    path = f"bottom.{index}"
    if not any(blob in each.message.top for each in specs if each is not spec):
        hint = nearest(blob, all_tops - {blob})
        return spec.fault(f"bottom {blob!r} is produced by no layer{hint}", path)
    cycle = _cycle(spec, specs)
    if cycle:
        written = " -> ".join(repr(each.name) for each in [*cycle, cycle[0]])
        return spec.fault(
            f"bottom {blob!r} closes a cycle: {written}",
            path,
            *((f"layer {each.name!r} is part of the cycle", each) for each in cycle[1:]),
        )
    later = next(each for each in specs if blob in each.message.top)
    return spec.fault(
        f"bottom {blob!r} is produced only later, by layer {later.name!r}; layers run in the order "
        "of the file, so move that layer up",
        path,
        ("produced here", later),
    )


def _cycle(start: LayerSpec, specs: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Layers from ``start`` along its consumers back to itself, or an empty list."""
    consumers: dict[str, list[LayerSpec]] = {}
    for spec in specs:
        for blob in spec.message.bottom:
            consumers.setdefault(blob, []).append(spec)
    came_from: dict[str, LayerSpec] = {}
    queue = [start]
    while queue:
        spec = queue.pop(0)
        for blob in spec.message.top:
            for follower in consumers.get(blob, ()):
                if follower is start:
                    path = [spec]
                    while path[-1] is not start:
                        path.append(came_from[path[-1].name])
                    return path[::-1]
                if follower.name not in came_from:
                    came_from[follower.name] = spec
                    queue.append(follower)
    return []
