"""Where things are kept from one run to the next."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .errors import ResourceError

_HOME = "CORTADO_HOME"
#: By this file programs know a cache, among them those that make backups (bford.info/cachedir).
_TAG = "CACHEDIR.TAG"
_SIGNATURE = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Kept by Cortado: cortado cache --help\n"
)


def home() -> Path:
    """The folder of downloads, compiled nets and cached features.

    CORTADO_HOME, or ``cortado`` in the user's cache folder.
    """
    if folder := os.environ.get(_HOME):
        return Path(folder)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "cortado"


@dataclass(frozen=True, slots=True)
class Usage:
    """How many files there are and their bytes."""

    files: int
    bytes: int


class Cache(Enum):
    """What is kept: each has the folder of its value in :func:`home`, and is made again when it is
    needed and not there."""

    def __init__(self, folder: str, about: str) -> None:
        self.folder = folder
        self.about = about

    WEIGHTS = "weights", "downloaded weights of the zoo's models"
    FEATURES = "features", "what frozen layers make of the records (cache_features)"
    NATIVE = "native", "kernels compiled for this processor"
    COMPILED = "compiled", "nets that torch.compile has compiled (compile)"

    @property
    def path(self) -> Path:
        """Where it is; there may be no such folder yet."""
        return home() / self.folder

    def make(self) -> Path:
        """The folder to write into, made and marked as Cortado's if it was not there.

        Where that fails nothing is raised: whoever writes into it will find out.
        """
        with contextlib.suppress(OSError):
            self.path.mkdir(parents=True)
            (self.path / _TAG).write_text(_SIGNATURE, encoding="utf-8")
        return self.path

    @property
    def is_own(self) -> bool:
        """Whether all in the folder is Cortado's: it made the folder, or nobody chose another home
        than its own."""
        if not os.environ.get(_HOME):
            return True
        try:
            return (self.path / _TAG).read_text(encoding="utf-8") == _SIGNATURE
        except (OSError, UnicodeDecodeError):
            return False

    def usage(self) -> Usage:
        """What is in the folder now, the mark aside."""
        sizes = []
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):  # another process may just remove it
                sizes.append(file.lstat().st_size)
        return Usage(len(sizes), sum(sizes))

    def clear(self) -> Usage:
        """Remove what is in the folder, and the folder; what that was.

        Links are removed, not followed; if the folder itself is one it stays. ResourceError for
        what cannot be removed, or if the folder is not Cortado's.
        """
        if not self.is_own:
            raise ResourceError(
                f"{self.path}: Cortado did not make this folder; see to it yourself"
            )
        removed = self.usage()
        try:
            # The mark goes last: whoever is interrupted can go on.
            for entry in sorted(self._entries(), key=lambda entry: entry.name == _TAG):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            if self.path.is_dir() and not self.path.is_symlink():
                self.path.rmdir()
        except OSError as error:
            raise ResourceError(f"{error.filename}: cannot be removed: {error.strerror}") from None
        return removed

    def _entries(self) -> list[Path]:
        return list(self.path.iterdir()) if self.path.is_dir() else []

    def _files(self) -> Iterator[Path]:
        for parent, folders, files in os.walk(self.path):
            here = Path(parent)
            links = [name for name in folders if (here / name).is_symlink()]
            for name in (*files, *links):
                if here != self.path or name != _TAG:
                    yield here / name
