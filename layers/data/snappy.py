"""Decompressing Snappy blocks, as LevelDB stores them.

Source: the format description that comes with Google's Snappy (format_description.txt).
"""

from __future__ import annotations

from ...proto.wire import read_varint


def decompress(block: memoryview) -> bytes:
    """The content of a raw Snappy block; ValueError if it is damaged."""
    size, position = read_varint(block, 0)
    out = bytearray()
    try:
        while position < len(block):
            tag = block[position]
            position += 1
            if tag & 3 == 0:
                length, position = _literal_length(block, tag, position)
                out += block[position : position + length]
                position += length
                continue
            length, offset, position = _copy(block, tag, position)
            start = len(out) - offset
            if offset == 0 or start < 0:
                raise ValueError("a copy points before the beginning")
            while length > 0:
                # A copy may reach into what it writes itself: then it repeats.
                part = out[start : start + length]
                out += part
                start, length = start + len(part), length - len(part)
    except IndexError:
        raise ValueError("the block ends too early") from None
    if len(out) != size:
        raise ValueError(f"the block has {len(out)} bytes instead of {size}")
    return bytes(out)


def _literal_length(block: memoryview, tag: int, position: int) -> tuple[int, int]:
    length = tag >> 2
    if length < 60:
        return length + 1, position
    count = length - 59
    return int.from_bytes(block[position : position + count], "little") + 1, position + count


def _copy(block: memoryview, tag: int, position: int) -> tuple[int, int, int]:
    """Length, distance and the position after a copy element."""
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, (tag >> 5) << 8 | block[position], position + 1
    width = 2 if tag & 3 == 2 else 4
    distance = int.from_bytes(block[position : position + width], "little")
    return (tag >> 2) + 1, distance, position + width
