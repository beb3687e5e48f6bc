"""Protobuf's wire format, walked by hand where protobuf itself would be too slow or too large.

A file of weights is a few small fields around large arrays of floats. Protobuf's Python reader
turns each float into an object; here the arrays go straight between the file and NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from .caffe_pb2 import BlobShape

M = TypeVar("M", bound=Message)

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")
_DATA, _DIFF, _SHAPE, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 7, 8, 9


class WireError(ValueError):
    """The bytes are no message, or end in the middle of one."""


@dataclass(slots=True)
class BlobArray:
    """The content of one blob.

    ``legacy_shape`` says that the file gave the shape as num, channels, height and width (always
    four axes): such a blob fits any shape that is equal after leading ones are dropped.
    """

    data: np.ndarray
    legacy_shape: bool = False
    diff: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One field of a message: where its tag, its content and its end are in the file."""

    number: int
    kind: int
    tag: int
    start: int
    end: int
    value: int = 0  # of a varint


def walk(view: memoryview, start: int, end: int) -> Iterator[Span]:
    """The fields of the message in ``view[start:end]``; WireError where it is none."""
    position = start
    while position < end:
        tag = position
        key, position = read_varint(view, position, end)
        number, kind = key >> 3, key & 7
        begin, value = position, 0
        if kind == VARINT:
            value, position = read_varint(view, position, end)
        elif kind == FIXED32:
            position += 4
        elif kind == FIXED64:
            position += 8
        elif kind == BYTES:
            length, begin = read_varint(view, position, end)
            position = begin + length
        else:
            raise WireError(f"there is no field at byte {tag:,}")
        if number == 0:
            raise WireError(f"there is no field at byte {tag:,}")
        if position > end:
            missing = position - end
            raise WireError(
                f"the field at byte {tag:,} needs {missing:,} bytes more: it is cut off"
            )
        yield Span(number, kind, tag, begin, position, value)


def read_varint(view: memoryview | bytes, position: int, end: int | None = None) -> tuple[int, int]:
    """A variable-length number and the position after it; WireError if ``end`` comes first."""
    end = len(view) if end is None else end
    value = shift = 0
    while position < end and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
        shift += 7
    raise WireError(f"the number that ends at byte {position:,} is cut off or too long")


def varint(value: int) -> bytes:
    """``value`` in variable-length form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, length: int) -> bytes:
    """The tag and length that stand before ``length`` bytes of field ``number``."""
    return varint(number << 3 | BYTES) + varint(length)


def read_blob(view: memoryview, start: int, end: int) -> BlobArray:
    """The BlobProto in ``view[start:end]`` as float32 arrays of their own (no views)."""
    dims: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    chunks: dict[int, list[np.ndarray]] = {}
    position = start
    while position < end:
        for span in walk(view, position, end):
            position = span.end
            if span.number <= 4 and span.kind == VARINT:
                dims[span.number] = span.value
            elif span.number == _SHAPE and span.kind == BYTES:
                shape = tuple(decode(BlobShape, bytes(view[span.start : span.end])).dim)
            elif span.number in (_DATA, _DIFF, _DOUBLE_DATA, _DOUBLE_DIFF):
                kind = _FLOAT if span.number in (_DATA, _DIFF) else _DOUBLE
                array, position = _read_numbers(view, span, end, kind)
                chunks.setdefault(span.number, []).append(array)
                break  # the walk goes on behind the numbers
    if dims:
        shape = tuple(dims.get(number, 0) for number in range(1, 5))
    data = _joined(chunks, _DOUBLE_DATA, _DATA, shape)
    if data is None:
        data = np.zeros(shape, np.float32) if 0 in shape else None
    if data is None:
        raise WireError(f"a blob of shape {shape} has no data")
    return BlobArray(data, bool(dims), _joined(chunks, _DOUBLE_DIFF, _DIFF, shape))


def _read_numbers(
    view: memoryview, span: Span, end: int, kind: np.dtype[Any]
) -> tuple[np.ndarray, int]:
    """Packed numbers, or a run of single ones that begins with ``span``; and where they end."""
    size = kind.itemsize
    if span.kind == BYTES:
        if (span.end - span.start) % size:
            raise WireError(f"the numbers at byte {span.start:,} are not whole")
        return np.frombuffer(view[span.start : span.end], kind), span.end
    if span.end - span.start != size:
        raise WireError(f"the numbers at byte {span.start:,} are of the wrong kind")
    if span.start - span.tag != 1:
        return np.frombuffer(view[span.start : span.end], kind), span.end
    stride = size + 1
    count = (end - span.tag) // stride
    rows = np.frombuffer(view[span.tag : span.tag + count * stride], np.uint8)
    rows = rows.reshape(count, stride)
    other = np.flatnonzero(rows[:, 0] != view[span.tag])
    count = int(other[0]) if len(other) else count
    numbers = np.ascontiguousarray(rows[:count, 1:]).view(kind).reshape(-1)
    return numbers, span.tag + count * stride


def decode(message_class: type[M], content: bytes) -> M:
    """``content`` as a message; WireError if it is none."""
    try:
        return message_class.FromString(content)
    except Exception as error:  # protobuf's DecodeError; of which class depends on its version
        name = message_class.DESCRIPTOR.name
        raise WireError(f"a {name} in it cannot be read: {error}") from None


def _joined(
    chunks: dict[int, list[np.ndarray]], double: int, single: int, shape: tuple[int, ...]
) -> np.ndarray | None:
    """The numbers of one of two fields in ``shape`` as float32 (doubles win, as in Caffe)."""
    parts = chunks.get(double) or chunks.get(single)
    if not parts:
        return None
    count = sum(len(part) for part in parts)
    wanted = 1
    for size in shape:
        if not 0 <= size < 2**31:
            raise WireError(f"a blob cannot have the shape {shape}")
        wanted *= size
    if count != wanted:
        raise WireError(f"a blob of shape {shape} must have {wanted:,} values, got {count:,}")
    out = np.empty(count, np.float32)
    np.concatenate(parts, out=out, casting="same_kind")
    return out.reshape(shape)


@dataclass(slots=True)
class Pieces:
    """Bytes of a message in the making: small strings and large arrays, not yet copied."""

    parts: list[bytes | memoryview]
    size: int = 0

    @classmethod
    def of(cls, *parts: bytes | memoryview | Pieces) -> Pieces:
        pieces = cls([])
        for part in parts:
            if isinstance(part, Pieces):
                pieces.parts += part.parts
                pieces.size += part.size
            else:
                pieces.parts.append(part)
                pieces.size += part.nbytes if isinstance(part, memoryview) else len(part)
        return pieces

    def as_field(self, number: int) -> Pieces:
        """These pieces as the content of field ``number``."""
        return Pieces.of(delimited(number, self.size), self)


def blob_pieces(blob: BlobArray) -> Pieces:
    """A BlobProto with ``shape``, its fields in the order of their numbers (as Caffe writes)."""
    shape = BlobShape(dim=blob.data.shape).SerializeToString()
    parts = [_array_bytes(blob.data).as_field(_DATA)] if blob.data.size else []
    if blob.diff is not None and blob.diff.size:
        parts.append(_array_bytes(blob.diff).as_field(_DIFF))
    return Pieces.of(*parts, Pieces.of(shape).as_field(_SHAPE))


def _array_bytes(array: np.ndarray) -> Pieces:
    flat = np.ascontiguousarray(array, _FLOAT).reshape(-1)
    return Pieces.of(flat.view(np.uint8).data)
