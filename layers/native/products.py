"""Matrix products of float32 by the processor's tiles of bfloat16, three for each float
(``kernels/products.h``): as accurate as float32's own, and two to three times as fast."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import library

#: Products of fewer terms than this are torch's: packing would take longer than they do.
_FEWEST = 1 << 20
#: Each side must be so long that blocks of 16 x 64 and chunks of 32 are mostly full.
_SHORTEST = 16


def mm(a: Tensor, b: Tensor) -> Tensor:
    """``a`` (rows, depth) times ``b`` (depth, columns), contiguous."""
    shape = (*a.shape, b.shape[1])
    if shape[0] * shape[1] * shape[2] < _FEWEST or min(shape) < _SHORTEST:
        return torch.mm(a, b)
    if not library.has_tiles() or not library.suits(a, b) or not (_lies_well(a) and _lies_well(b)):
        return torch.mm(a, b)
    found = library.function("products", "products_multiply", "ppppni")
    if found is None:
        return torch.mm(a, b)
    c = torch.empty(shape[0], shape[2])
    threads = torch.get_num_threads()
    room = torch.empty(_room(*shape, threads))
    given = library.numbers(*shape, *a.stride(), *b.stride())
    found(a.data_ptr(), b.data_ptr(), c.data_ptr(), room.data_ptr(), given, threads)
    return c


def _lies_well(matrix: Tensor) -> bool:
    """Whether rows or columns are contiguous."""
    return 1 in matrix.stride()


@cache
def _room(*given: int) -> int:
    room = library.numbers(0)
    found: Any = library.function("products", "products_room", "nn")
    found(library.numbers(*given), room)
    return int(room[0])
