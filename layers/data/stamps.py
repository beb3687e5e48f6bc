"""What tells a file from an edited or another one without reading it."""

from __future__ import annotations

import os
from pathlib import Path


def stamp(path: str | Path) -> str:
    """Where a file really is, its size, and when it was written last (if it is there)."""
    place = os.path.realpath(path)
    try:
        found = os.stat(place)
    except OSError:
        return place
    return f"{place} {found.st_size} {found.st_mtime_ns}"
