"""Finding and reading included files: next to the main file, or in the library of blocks."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError, Source, nearest
from ..reading import read_text
from ..syntax import read, refuse
from ..tree import Root
from .values import ExpansionError

#: The blocks that ship with the zoo.
LIBRARY = Path(__file__).resolve().parents[2] / "model_zoo" / "blocks"


class Includes:
    """The files of one expansion; ``folder`` is the main file's (None for a text without one)."""

    def __init__(self, main: str, folder: Path | None) -> None:
        self._folders = [LIBRARY]
        self._reading: list[Path] = []
        self._done: set[Path] = set()
        if folder is not None:
            self._folders.insert(0, folder.resolve())
            self._reading.append((folder / Path(main).name).resolve())

    def open(self, name: str) -> tuple[Source, Root] | None:
        """The file ``name``, which counts as being read until :meth:`close`.

        None if it was included before: what it defines is known. ExpansionError if it is not
        allowed, not there, or being read already; ConfigError for faults in it.
        """
        path = self._find(name)
        if path in self._reading:
            way = " includes ".join(step.name for step in [*self._reading, path])
            raise ExpansionError(f"include goes round in a circle: {way}")
        if path in self._done:
            return None
        try:
            text = read_text(path)
        except ConfigError as error:
            raise ExpansionError(f"cannot include {name!r}: {error}") from None
        self._reading.append(path)
        source = Source(
            os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path), text
        )
        tree, problems = read(source)
        if problems:
            raise refuse(source, problems)
        return source, tree

    def close(self) -> None:
        """The file opened last has been read to its end."""
        self._done.add(self._reading.pop())

    def _find(self, name: str) -> Path:
        here = self._reading[-1].parent if self._reading else None
        for folder in (here, *self._folders):
            path = (folder / name).resolve() if folder and "\0" not in name else None
            if path is None or not path.is_file():
                continue
            if any(path.is_relative_to(allowed) for allowed in self._folders):
                return path
            places = " and ".join(str(allowed) for allowed in self._folders)
            raise ExpansionError(f"{name!r} is outside the folders to include from: {places}")
        known = [path.name for folder in self._folders for path in folder.glob("*.prototxt")]
        raise ExpansionError(
            f"no file {name!r} to include, neither beside this file nor in the library"
            f"{nearest(name, known)}"
        )
