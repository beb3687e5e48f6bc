"""How the layers of an expanded net are nested: which block, turn or file each came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..caffe_pb2 import LayerParameter, NetParameter
from ..errors import Location
from ..positions import Document
from .origins import TURN


@dataclass(slots=True)
class Group:
    """The layers of one use of a block or one turn of a repetition, in their order."""

    title: str
    place: Location
    children: list[Group | LayerParameter] = field(default_factory=list)

    def layers(self) -> Iterator[LayerParameter]:
        """All layers of the group, those of groups in it as well."""
        for child in self.children:
            if isinstance(child, Group):
                yield from child.layers()
            else:
                yield child

    @property
    def is_turn(self) -> bool:
        """Whether it is one turn of a repetition rather than the use of a block."""
        return self.title.split(" ")[0] == TURN


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


def folded(document: Document[NetParameter], depth: int) -> list[LayerParameter]:
    """The net's layers, with each block that is nested ``depth`` deep as a single layer.

    Such a layer has the use's title as name, ``block`` as type, the blobs that the block takes from
    outside as bottoms, and those that layers outside read, or none reads, as tops. Turns of
    repetitions are no nesting.
    """
    readers: dict[str, int] = {}
    for layer in document.message.layer:
        for blob in layer.bottom:
            readers[blob] = readers.get(blob, 0) + 1
    return list(_fold(outline(document), depth, readers))


def _fold(
    children: list[Group | LayerParameter], depth: int, readers: dict[str, int]
) -> Iterator[LayerParameter]:
    for child in children:
        if not isinstance(child, Group):
            yield child
        elif child.is_turn:
            yield from _fold(child.children, depth, readers)
        elif depth > 0:
            yield from _fold(child.children, depth - 1, readers)
        else:
            yield _closed(child, readers)


def _closed(group: Group, readers: dict[str, int]) -> LayerParameter:
    """A whole group as one layer; ``readers`` counts the layers of the net that read each blob."""
    bottoms: dict[str, None] = {}
    made: dict[str, int] = {}  # and how many layers of the group read it
    for layer in group.layers():
        for blob in layer.bottom:
            if blob in made:
                made[blob] += 1
            else:
                bottoms[blob] = None
        for blob in layer.top:
            made.setdefault(blob, 0)
    tops = [blob for blob, inside in made.items() if readers.get(blob, 0) > inside or not inside]
    last = [blob for blob in list(made)[-1:] if not tops]
    return LayerParameter(name=group.title, type="block", bottom=list(bottoms), top=tops or last)


def _chain(location: Location) -> list[Location]:
    """The uses and turns that led to a place, the outermost first."""
    chain: list[Location] = []
    while location.parent is not None:
        location = location.parent
        if location.note:
            chain.append(location)
    return chain[::-1]
