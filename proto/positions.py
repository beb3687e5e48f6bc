"""Where each field of a message stood in the text it was read from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from .errors import Location, Source

M = TypeVar("M", bound=Message)


class Node:
    """The place of one field's value; for a message value also the places of its fields.

    ``fields`` maps a field name to the nodes of its values in order of appearance (a repeated field
    has one node a value). It is None for scalars. A scalar stands where its value is written, a
    message where the name of its field is.
    """

    __slots__ = ("fields", "offset", "parent", "source")

    def __init__(
        self,
        source: Source,
        offset: int,
        fields: dict[str, list[Node]] | None = None,
        parent: Location | None = None,
    ) -> None:
        self.source = source
        self.offset = offset
        self.fields = fields
        self.parent = parent

    @property
    def line(self) -> int:
        """The line in ``source``, from 1 (counted only when somebody asks)."""
        return self.source.position(self.offset)[0]

    @property
    def column(self) -> int:
        """The column in ``source``, from 1."""
        return self.source.position(self.offset)[1]

    @property
    def location(self) -> Location:
        return self.source.locate(self.offset, self.parent)

    def find(self, path: str) -> Node:
        """The node at a dotted ``path`` such as ``"pooling_param.kernel_size"``.

        A step may carry an index (``"bottom.1"`` is the second bottom). Where the text does not
        have the field (it stands at its default), the nearest enclosing node answers.
        """
        node = self
        siblings = [self]
        for step in path.split(".") if path else []:
            if step.isdigit():
                node = siblings[min(int(step), len(siblings) - 1)]
                continue
            siblings = node.children(step)
            if not siblings:
                break
            node = siblings[0]
        return node

    def children(self, name: str) -> list[Node]:
        """The nodes of all values of the field ``name``."""
        return (self.fields or {}).get(name, [])


@dataclass(frozen=True, slots=True)
class Document(Generic[M]):
    """A message and the positions of its fields; ``root`` is None if it was not text.

    ``variables`` are the values given for variables of the file and of those it names.
    """

    message: M
    root: Node | None = None
    variables: Mapping[str, object] = field(default_factory=dict)

    def nodes(self, name: str) -> Iterator[Node | None]:
        """One node per value of the repeated field ``name`` (None where there is no text)."""
        found = self.root.children(name) if self.root else []
        for index in range(len(getattr(self.message, name))):
            yield found[index] if index < len(found) else None
