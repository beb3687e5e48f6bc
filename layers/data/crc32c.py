"""CRC-32C (Castagnoli), the checksum of LevelDB, over many parts of the data at once in NumPy.

The remainder of data that begins with zeros is that of the data alone, and the remainder of two
parts follows from those of each: that lets NumPy work on hundreds of parts side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The polynomial of RFC 3720, appendix B.4, lowest bit first.
_POLYNOMIAL = 0x82F63B78
#: Words of 16 bits in one part.
_PART = 64
_ALL = 0xFFFFFFFF
Words = NDArray[np.uint32]


def _table() -> Words:
    """What 16 bits add to the remainder of what follows them."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = (table >> np.uint32(1)) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


_TABLE = _table()


def _behind(remainders: Words, following: Words | None = None) -> Words:
    """The remainders after 16 more bits, zeros if they are not given."""
    mixed = remainders if following is None else remainders ^ following
    return _TABLE[mixed & np.uint32(0xFFFF)] ^ (remainders >> np.uint32(16))


def _one_part() -> tuple[Words, Words]:
    low = np.arange(1 << 16, dtype=np.uint32)
    high = low << np.uint32(16)
    for _ in range(_PART):
        low, high = _behind(low), _behind(high)
    return low, high


#: For 2^n parts of zeros behind it: what the lower and the upper half of a remainder become.
_SHIFTS = [_one_part()]


def _shifted(remainders: Words, level: int) -> Words:
    """The remainders with 2^level parts of zeros behind them."""
    while level >= len(_SHIFTS):
        last = len(_SHIFTS) - 1
        low, high = _SHIFTS[last]
        _SHIFTS.append((_shifted(low, last), _shifted(high, last)))
    low, high = _SHIFTS[level]
    return low[remainders & np.uint32(0xFFFF)] ^ high[remainders >> np.uint32(16)]


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of ``data``, of at least four bytes."""
    size = len(data)
    parts = 1 << max(0, -(-size // (2 * _PART)) - 1).bit_length()
    padded = np.zeros(parts * 2 * _PART, np.uint8)
    padded[len(padded) - size :] = np.frombuffer(data, np.uint8)
    # The register starts with all bits set, which is the same as the first four bytes inverted.
    padded[len(padded) - size :][:4] ^= 0xFF
    columns = np.ascontiguousarray(padded.view("<u2").reshape(parts, _PART).T).astype(np.uint32)
    remainders = np.zeros(parts, np.uint32)
    for column in columns:
        remainders = _behind(remainders, column)
    level = 0
    while len(remainders) > 1:
        remainders = _shifted(remainders[::2], level) ^ remainders[1::2]
        level += 1
    return int(remainders[0]) ^ _ALL


def masked(data: bytes | memoryview) -> int:
    """The checksum as LevelDB stores it: rotated and moved, as it may be part of checked data."""
    found = crc32c(data)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & _ALL
