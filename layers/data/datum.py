"""Datum records: read from their wire format without copying the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ...proto import caffe_pb2
from ...proto.errors import DataError
from ...proto.wire import varint

# Tags of the fields as Caffe writes them: field number * 8 + wire type.
_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _ENCODED = 8, 16, 24, 34, 40, 56


@dataclass(slots=True)
class Record:
    """One Datum: ``data`` is a view of the stored bytes (empty if there are none).

    ``label`` is None if the record has none; ``labels`` are several or a vector in its place.
    """

    channels: int = 0
    height: int = 0
    width: int = 0
    label: int | None = None
    encoded: bool = False
    data: memoryview | bytes = b""
    float_data: NDArray[np.float32] | None = None
    labels: NDArray[np.float32] | None = None

    def array(self) -> NDArray[np.uint8] | NDArray[np.float32]:
        """The pixels or values of a record that is not encoded, as (channels, height, width)."""
        shape = (self.channels, self.height, self.width)
        if min(shape) < 1:
            raise DataError(f"the shape {_text(shape)} of the datum has no elements")
        if self.float_data is not None and len(self.data):
            raise DataError(
                f"the datum has both {len(self.data):,} bytes of data and "
                f"{self.float_data.size:,} values of float_data; it must have one of them"
            )
        values: NDArray[np.uint8] | NDArray[np.float32]
        if self.float_data is None:
            values, unit = np.frombuffer(self.data, np.uint8), "bytes of data"
        else:
            values, unit = self.float_data, "values of float_data"
        needed = self.channels * self.height * self.width
        if values.size != needed:
            raise DataError(
                f"the shape {_text(shape)} of the datum needs {needed:,} {unit}, "
                f"got {values.size:,}"
            )
        return values.reshape(shape)


def parse(value: memoryview | bytes) -> Record:
    """The Datum in ``value``; its pixels remain in ``value``. DataError if it is no Datum.

    The fields that databases have are read here; protobuf reads what is rare (float_data, unknown
    fields, negative labels), because building its message copies the pixels twice.
    """
    record = Record()
    position, end = 0, len(value)
    try:
        while position < end:
            tag = value[position]
            position += 1
            number = value[position]
            position += 1
            if number > 127:
                number &= 127
                shift = 7
                while True:
                    byte = value[position]
                    position += 1
                    number |= (byte & 127) << shift
                    if byte < 128:
                        break
                    shift += 7
            if tag == _DATA:
                if position + number > end:
                    return _parse_with_protobuf(value)
                record.data = value[position : position + number]
                position += number
            elif number >= 1 << 31:
                return _parse_with_protobuf(value)
            elif tag == _CHANNELS:
                record.channels = number
            elif tag == _HEIGHT:
                record.height = number
            elif tag == _WIDTH:
                record.width = number
            elif tag == _LABEL:
                record.label = number
            elif tag == _ENCODED:
                record.encoded = bool(number)
            else:
                return _parse_with_protobuf(value)
    except IndexError:
        return _parse_with_protobuf(value)
    return record


def serialize(
    data: bytes | memoryview, label: int, shape: tuple[int, int, int] | None = None
) -> bytes:
    """The Datum of raw pixels of ``shape``, or without a shape of an encoded image.

    The bytes are those of protobuf, which would copy the pixels once more.
    """
    head = b""
    if shape is not None:
        channels, height, width = shape
        head = caffe_pb2.Datum(channels=channels, height=height, width=width).SerializeToString()
    tail = caffe_pb2.Datum(label=label, encoded=shape is None).SerializeToString()
    return b"".join((head, bytes([_DATA]), varint(memoryview(data).nbytes), data, tail))


def _parse_with_protobuf(value: memoryview | bytes) -> Record:
    try:
        datum = caffe_pb2.Datum.FromString(bytes(value))
    except DecodeError as error:
        raise DataError(f"the value of {len(value):,} bytes is no Datum ({error})") from None
    return Record(
        datum.channels,
        datum.height,
        datum.width,
        datum.label if datum.HasField("label") else None,
        datum.encoded,
        datum.data,
        np.array(datum.float_data, np.float32) if datum.float_data else None,
        np.array(datum.labels, np.float32) if datum.labels else None,
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
