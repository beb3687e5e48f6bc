"""Numbers of seven bits a byte, lowest first, as protobuf, LevelDB and Snappy write them."""

from __future__ import annotations


def varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` and the position after it; ValueError if it ends too early."""
    number = shift = 0
    try:
        while True:
            byte = data[position]
            position += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number, position
            shift += 7
    except IndexError:
        raise ValueError("a number ends too early") from None


def to_varint(number: int) -> bytes:
    """The bytes of a number that is not negative."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
