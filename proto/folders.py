"""Where things are kept from one run to the next."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder of downloads, compiled nets and cached features.

    CORTADO_HOME, or ``cortado`` in the user's cache folder.
    """
    if folder := os.environ.get("CORTADO_HOME"):
        return Path(folder)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "cortado"
