"""Reading the shapes that prototxt states, and spreading one value over several tops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ...proto import caffe_pb2
from ...proto.errors import LayerError
from ..base import Shape

T = TypeVar("T")

#: Caffe counts the elements of a blob in a 32-bit integer.
MAX_ELEMENTS = 2**31 - 1


def checked(dimensions: Sequence[int], path: str) -> Shape:
    """The shape as a tuple; a LayerError at ``path`` if it has no elements or too many."""
    shape = tuple(int(dimension) for dimension in dimensions)
    count = 1
    for index, dimension in enumerate(shape):
        if dimension < 1:
            raise LayerError(
                f"every dimension of a shape must be at least 1, got {dimension} "
                f"at position {index} of {list(shape)}",
                path,
            )
        count *= dimension
    if count > MAX_ELEMENTS:
        raise LayerError(
            f"a blob may have at most 2^31 - 1 elements, got {count:,} in {list(shape)}", path
        )
    return shape


def shape_of(message: caffe_pb2.BlobShape, path: str) -> Shape:
    """The shape that a BlobShape message states."""
    return checked(message.dim, f"{path}.dim")


def per_top(values: Sequence[T], num_tops: int, path: str) -> list[T]:
    """One value a top: ``values`` as they are, or the only one repeated."""
    if len(values) not in (1, num_tops):
        raise LayerError(
            f"must be given once, or once for each of the {num_tops} tops, "
            f"got {len(values)} values",
            path,
        )
    return list(values) if len(values) == num_tops else [values[0]] * num_tops


def positive(value: int, path: str) -> int:
    """``value`` if it is at least 1; a LayerError at ``path`` otherwise."""
    if value < 1:
        raise LayerError(f"must be at least 1, got {value}", path)
    return value
