"""Modules with a user's own layers, imported because the user names them.

Importing a module runs it. Nothing is imported but what the command line (``--import``), a net or
a solver (``import:``) names, and what an installed package declares as the entry point of a layer
type that a net uses (:mod:`.registry`). A net from somebody else that names modules asks to run
code: read it first, as one would read the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from ..proto.errors import ConfigError, Fault, Location
from ..proto.positions import Document, M


def import_modules(
    names: Iterable[str], folder: Path | None = None, places: Iterable[Location | None] = ()
) -> None:
    """Import modules by their dotted names, so that their layers register themselves.

    They are looked for in the working directory and in ``folder`` before Python's own path.
    ``places`` are where the names stand. Raises ConfigError for a module that cannot be imported.
    """
    where = list(places)
    faults = []
    with searching([Path.cwd(), *([folder] if folder else [])]):
        for index, name in enumerate(names):
            place = where[index] if index < len(where) else None
            try:
                import_module(name)
            except Exception as error:  # whatever the user's module raises while it is imported
                detail = f"{type(error).__name__}: {error}"
                faults.append(Fault(f"cannot import the module {name!r}: {detail}", place))
    if faults:
        raise ConfigError(faults)


def import_named(document: Document[M]) -> None:
    """Import what a net's or solver's ``import`` fields name; its folder is searched too."""
    names = list(getattr(document.message, "import"))
    if not names:
        return
    places = [node.location if node else None for node in document.nodes("import")]
    file = Path(document.root.source.name) if document.root else None
    import_modules(names, file.parent if file and file.exists() else None, places)


@contextmanager
def searching(folders: Iterable[Path]) -> Iterator[None]:
    """Find modules in ``folders`` first."""
    added = [str(folder.resolve()) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)
