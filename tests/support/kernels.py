"""Where tests of compiled kernels can run."""

from __future__ import annotations

import pytest

from cortado.layers.native import library

#: Not where one of them cannot be compiled although there is a compiler: then its tests must fail.
needs_compiler = pytest.mark.skipif(bool(library.obstacle()), reason=library.obstacle())


def forget() -> None:
    """Let kernels be compiled and loaded anew."""
    for each in (library._load, library.function, library.figures):
        each.cache_clear()
