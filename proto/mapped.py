"""A file's bytes without reading them all."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator

from .errors import SnapshotError


@contextlib.contextmanager
def mapped(path: str | os.PathLike[str]) -> Iterator[memoryview]:
    """The content of ``path``, mapped; SnapshotError if it is not there or cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "cannot be read").lower()
        raise SnapshotError(f"{path}: {reason}") from None
    with memoryview(content) as view:
        yield view
    # The mapping ends with its last reference: an error on its way up may still hold slices of it.
