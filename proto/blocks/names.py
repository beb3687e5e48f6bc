"""Names of layers and blobs inside blocks.

A named use puts its name and a slash before every name inside; an unnamed one leaves names as
they are written. A block's declared bottoms and tops stand for the blobs its use gives.
"""

from __future__ import annotations

from ..errors import nearest
from .values import Blob, ExpansionError


class Names:
    """The names at the top of a file; :class:`Inner` are those inside a block."""

    def __init__(self) -> None:
        self.last: Blob | None = None

    def layer(self, name: str) -> str:
        """The final name of the layer written as ``name``."""
        return name

    def bottom(self, name: str) -> Blob:
        """The blob that a layer reads as ``name``."""
        return Blob(name)

    def top(self, name: str) -> Blob:
        """The blob that a layer makes as ``name``."""
        return Blob(name)


class Inner(Names):
    """The names inside one use of a block; ``given`` maps its declared blobs to real ones."""

    def __init__(self, outer: Names, name: str, block: str, given: dict[str, Blob]) -> None:
        super().__init__()
        self.outer = outer
        self.prefix = f"{name}/" if name else ""
        self.block = block
        self.given = given
        self.made: dict[str, Blob] = {}

    def layer(self, name: str) -> str:
        return self.outer.layer(self.prefix + name)

    def bottom(self, name: str) -> Blob:
        if isinstance(name, Blob):
            return name
        blob = self.given.get(name) or self.made.get(name)
        if blob is not None:
            return blob
        if self.prefix:
            hint = nearest(name, (*self.given, *self.made))
            raise ExpansionError(
                f"blob {name!r} is neither a bottom of block {self.block!r} nor made in it "
                f"before{hint}"
            )
        return self.outer.bottom(name)

    def top(self, name: str) -> Blob:
        if isinstance(name, Blob):
            return name
        blob = self.given.get(name)
        if blob is None:
            blob = self.outer.top(self.prefix + name)
        self.made[name] = blob
        return blob
