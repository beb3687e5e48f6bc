"""How the layers of an expanded net are nested: which block, turn or file each came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..caffe_pb2 import LayerParameter, NetParameter
from ..errors import Location
from ..positions import Document


@dataclass(slots=True)
class Group:
    """The layers of one use of a block or one turn of a repetition, in their order."""

    title: str
    place: Location
    children: list[Group | LayerParameter] = field(default_factory=list)


def outline(document: Document[NetParameter]) -> list[Group | LayerParameter]:
    """The layers of a net and the groups they are in, nested as the blocks are."""
    top: list[Group | LayerParameter] = []
    path: list[Group] = []
    for layer, node in zip(document.message.layer, document.nodes("layer"), strict=True):
        chain = _chain(node.location) if node is not None else []
        shared = 0
        while shared < min(len(path), len(chain)) and path[shared].place == chain[shared]:
            shared += 1
        del path[shared:]
        for place in chain[shared:]:
            group = Group(place.note, place)
            (path[-1].children if path else top).append(group)
            path.append(group)
        (path[-1].children if path else top).append(layer)
    return top


def _chain(location: Location) -> list[Location]:
    """The uses and turns that led to a place, the outermost first."""
    chain: list[Location] = []
    while location.parent is not None:
        location = location.parent
        if location.note:
            chain.append(location)
    return chain[::-1]
