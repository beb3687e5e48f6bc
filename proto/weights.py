"""Trained weights: reading .caffemodel files (of any age, binary or HDF5) and writing them.

Binary files are mapped and walked (:mod:`.wire`): 240 MB take a fraction of a second and no more
memory than the file and the arrays.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import hdf5
from .atomic import write_atomically
from .caffe_pb2 import (
    LayerParameter,
    NetParameter,
    Preprocessing,
    V0LayerParameter,
    V1LayerParameter,
)
from .errors import SnapshotError
from .mapped import mapped
from .recognise import HDF5, NET, STATE, recognise
from .upgrade import V1_TYPES
from .upgrade_v0 import TYPES as V0_TYPES
from .wire import (
    BYTES,
    BlobArray,
    Pieces,
    Span,
    WireError,
    blob_pieces,
    decode,
    delimited,
    read_blob,
    walk,
)

AnyPath = str | os.PathLike[str]

#: Protobuf's own limit: no reader accepts a message of 2 GiB.
MAX_BINARY_BYTES = 2**31 - 1

_PREPROCESSING = "preprocessing"
_PREPROCESSING_FIELD = NetParameter.PREPROCESSING_FIELD_NUMBER


@dataclass(slots=True)
class LayerBlobs:
    """The blobs of one layer, in Caffe's order.

    ``type`` is the current name of the layer's type, empty where the file does not say (HDF5).
    None stands for a blob that the file leaves to the layer that shares it (HDF5 only).
    """

    name: str
    type: str
    blobs: list[BlobArray | None]


@dataclass(slots=True)
class Weights(Sequence[LayerBlobs]):
    """What a file of weights holds: its layers in the file's order, also those without blobs, and
    how the images that they were trained on were prepared (empty where the file is silent)."""

    path: str
    layers: list[LayerBlobs]
    preprocessing: list[Preprocessing] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: Any) -> Any:
        return self.layers[index]

    def __iter__(self) -> Iterator[LayerBlobs]:
        return iter(self.layers)


def read_weights(path: AnyPath) -> Weights:
    """The weights in a .caffemodel of any format version, or in Caffe's HDF5 form.

    The format is told from the content. SnapshotError names what is wrong: a file that is no
    weights, is cut off, or whose blobs do not agree with their shapes.
    """
    name = os.fspath(path)
    with mapped(path) as view:
        what = recognise(view)
        if what == NET:
            try:
                return Weights(name, list(_read_net(view)), _preprocessing(view))
            except WireError as error:
                raise SnapshotError(f"{name}: {error}") from None
    if what == HDF5:
        groups = hdf5.read_model(path)
        layers = [LayerBlobs(layer, "", blobs) for layer, blobs in groups]
        return Weights(name, layers, _preprocessing_hdf5(path))
    hint = "; it belongs to --snapshot" if what == STATE else ""
    raise SnapshotError(f"{name}: must be weights (.caffemodel or HDF5), but is {what}{hint}")


def write_weights(path: AnyPath, net: NetParameter, blobs: Sequence[LayerBlobs]) -> None:
    """Write a binary .caffemodel: ``net`` with the blobs of each of its layers (by name).

    The file appears complete or not at all. SnapshotError if it would be too large for protobuf.
    """
    pieces = _net_pieces(net, {layer.name: layer for layer in blobs})
    if pieces.size > MAX_BINARY_BYTES:
        raise SnapshotError(
            f"{path}: the weights would take {pieces.size:,} bytes; a binary caffemodel can hold "
            f"at most {MAX_BINARY_BYTES:,}; write HDF5 instead (snapshot_format: HDF5)"
        )
    with write_atomically(path) as file:
        file.writelines(pieces.parts)


def write_weights_hdf5(
    path: AnyPath, blobs: Iterable[LayerBlobs], net: NetParameter | None = None
) -> None:
    """Write weights as Caffe's HDF5 snapshots do: ``/data/<layer>/<i>``, and ``/diff`` if given.

    A blob that is None is left out (the layer that shares it has it). Of ``net`` only the
    preprocessing is stored.
    """
    own: dict[str, hdf5.Value] = {}
    if net is not None and net.preprocessing:
        stored = NetParameter(preprocessing=net.preprocessing)
        own[_PREPROCESSING] = stored.SerializeToString(deterministic=True)
    hdf5.write_model(path, [(layer.name, layer.blobs) for layer in blobs], own)


def read_preprocessing(path: AnyPath) -> list[Preprocessing]:
    """How the images that weights in Caffe's formats were trained on were prepared, without reading
    the weights; empty where the file is silent. SnapshotError for other files.
    """
    with mapped(path) as view:
        what = recognise(view)
        if what == NET:
            try:
                return _preprocessing(view)
            except WireError as error:
                raise SnapshotError(f"{path}: {error}") from None
    if what != HDF5:
        raise SnapshotError(f"{path}: must be weights (.caffemodel or HDF5), but is {what}")
    return _preprocessing_hdf5(path)


def _preprocessing(view: memoryview) -> list[Preprocessing]:
    return [
        decode(Preprocessing, bytes(view[span.start : span.end]))
        for span in walk(view, 0, len(view))
        if span.number == _PREPROCESSING_FIELD and span.kind == BYTES
    ]


def _preprocessing_hdf5(path: AnyPath) -> list[Preprocessing]:
    stored = hdf5.read_own(path).get(_PREPROCESSING)
    if not isinstance(stored, bytes):
        return []
    try:
        return list(decode(NetParameter, stored).preprocessing)
    except WireError as error:
        raise SnapshotError(f"{path}: {error}") from None


def read_net_message(path: AnyPath) -> NetParameter:
    """The net that a binary file describes, without its blobs, in the format it has there."""
    with mapped(path) as view:
        what = recognise(view)
        if what != NET:
            raise SnapshotError(f"{path}: must be a binary net (.caffemodel), but is {what}")
        try:
            head, layers = _split(view, Span(0, BYTES, 0, 0, len(view)), (2, 100))
            for span in layers:
                rest, _ = _split(view, span, (7,) if span.number == 100 else (6, 1))
                head += delimited(span.number, len(rest)) + rest
            return decode(NetParameter, head)
        except WireError as error:
            raise SnapshotError(f"{path}: {error}") from None


def _read_net(view: memoryview) -> Iterator[LayerBlobs]:
    for span in walk(view, 0, len(view)):
        if span.kind != BYTES:
            continue
        if span.number == 100:
            rest, found = _split(view, span, (7,))
            layer = decode(LayerParameter, rest)
            yield _layer(view, layer.name, layer.type, found)
        elif span.number == 2:
            yield from _read_old_layer(view, span)


def _read_old_layer(view: memoryview, span: Span) -> Iterator[LayerBlobs]:
    """A V1 layer, or the V0 layer nested in it."""
    rest, found = _split(view, span, (6, 1))
    nested = [inner for inner in found if inner.number == 1]
    if nested:
        rest, found = _split(view, nested[0], (50,))
        v0 = decode(V0LayerParameter, rest)
        if v0.type == "padding":
            return
        old_type = V0_TYPES.get(v0.type, "NONE")
        yield _layer(view, v0.name, V1_TYPES[old_type], found)
        return
    v1 = decode(V1LayerParameter, rest)
    yield _layer(view, v1.name, V1_TYPES[V1LayerParameter.LayerType.Name(v1.type)], found)


def _layer(view: memoryview, name: str, kind: str, spans: list[Span]) -> LayerBlobs:
    blobs: list[BlobArray | None] = []
    for span in spans:
        try:
            blobs.append(read_blob(view, span.start, span.end))
        except WireError as error:
            raise WireError(f"layer {name!r}, blob {len(blobs)}: {error}") from None
    return LayerBlobs(name, kind, blobs)


def _split(view: memoryview, outer: Span, numbers: tuple[int, ...]) -> tuple[bytes, list[Span]]:
    """The fields of a message other than ``numbers`` as bytes, and those of ``numbers``."""
    rest: list[memoryview] = []
    found: list[Span] = []
    for span in walk(view, outer.start, outer.end):
        if span.number in numbers and span.kind == BYTES:
            found.append(span)
        else:
            rest.append(view[span.tag : span.end])
    return b"".join(rest), found


def _net_pieces(net: NetParameter, blobs: dict[str, LayerBlobs]) -> Pieces:
    """A NetParameter's bytes in the order of the field numbers, by which files are recognised."""
    head = NetParameter()
    head.CopyFrom(net)
    head.ClearField("layer")
    head.ClearField("preprocessing")
    pieces = Pieces.of(head.SerializeToString(deterministic=True))
    parts: list[Pieces] = [pieces]
    for layer in net.layer:
        first, last = _halves(layer)
        stored = blobs[layer.name].blobs if layer.name in blobs else []
        middle = [blob_pieces(blob).as_field(7) for blob in stored if blob is not None]
        parts.append(Pieces.of(first, *middle, last).as_field(100))
    own = NetParameter(preprocessing=net.preprocessing)
    parts.append(Pieces.of(own.SerializeToString(deterministic=True)))
    return Pieces.of(*parts)


def _halves(layer: LayerParameter) -> tuple[bytes, bytes]:
    """The bytes of a layer's fields before and after its blobs."""
    before, after = LayerParameter(), LayerParameter()
    before.CopyFrom(layer)
    before.ClearField("blobs")
    after.CopyFrom(before)
    for field, _ in layer.ListFields():
        if field.name != "blobs":
            (after if field.number < 7 else before).ClearField(field.name)
    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)
