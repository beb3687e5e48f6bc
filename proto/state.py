"""The solver's side of a snapshot: iteration, history, and what a run needs to go on exactly."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from . import hdf5
from .atomic import write_atomically
from .caffe_pb2 import SavedValue, SolverState
from .errors import SnapshotError
from .hdf5 import Value
from .mapped import mapped
from .recognise import HDF5, NET, STATE, recognise
from .weights import MAX_BINARY_BYTES
from .wire import BYTES, BlobArray, Pieces, WireError, blob_pieces, decode, read_blob, walk

AnyPath = str | os.PathLike[str]
_HISTORY = SolverState.HISTORY_FIELD_NUMBER


@dataclass(slots=True)
class SolverSnapshot:
    """What a .solverstate holds.

    ``history`` has the solver's arrays in Caffe's order, ``learned_net`` the path of the weights as
    it was written, ``extra`` values of our own by name, which Caffe passes over.
    """

    iter: int
    learned_net: str = ""
    current_step: int = 0
    history: list[np.ndarray] = field(default_factory=list)
    extra: dict[str, Value] = field(default_factory=dict)


def read_state(path: AnyPath) -> SolverSnapshot:
    """The solver state in ``path``, binary or HDF5 (told from its content).

    SnapshotError says what is wrong with the file, or what it is instead.
    """
    with mapped(path) as view:
        what = recognise(view)
        if what == STATE:
            try:
                return _read_binary(view)
            except WireError as error:
                raise SnapshotError(f"{path}: {error}") from None
    if what == HDF5:
        return SolverSnapshot(*hdf5.read_state(path))
    hint = "; it belongs to --weights" if what == NET else ""
    raise SnapshotError(f"{path}: must be a solver state (.solverstate), but is {what}{hint}")


def write_state(path: AnyPath, snapshot: SolverSnapshot) -> None:
    """Write a binary .solverstate that Caffe can read; it appears complete or not at all."""
    head = SolverState(iter=snapshot.iter, learned_net=snapshot.learned_net)
    tail = SolverState(current_step=snapshot.current_step)
    for name, value in snapshot.extra.items():
        tail.saved.append(_saved(name, value))
    history = [blob_pieces(BlobArray(array)).as_field(_HISTORY) for array in snapshot.history]
    first, last = (part.SerializeToString(deterministic=True) for part in (head, tail))
    pieces = Pieces.of(first, *history, last)
    if pieces.size > MAX_BINARY_BYTES:
        raise SnapshotError(
            f"{path}: the solver state would take {pieces.size:,} bytes; in binary form it can "
            f"have at most {MAX_BINARY_BYTES:,}; write HDF5 instead (snapshot_format: HDF5)"
        )
    with write_atomically(path) as file:
        file.writelines(pieces.parts)


def write_state_hdf5(path: AnyPath, snapshot: SolverSnapshot) -> None:
    """Write the solver state as Caffe's HDF5 snapshots do."""
    hdf5.write_state(
        path,
        snapshot.iter,
        snapshot.learned_net,
        snapshot.current_step,
        snapshot.history,
        snapshot.extra,
    )


def _read_binary(view: memoryview) -> SolverSnapshot:
    rest: list[memoryview] = []
    history: list[np.ndarray] = []
    for span in walk(view, 0, len(view)):
        if span.number == _HISTORY and span.kind == BYTES:
            try:
                history.append(read_blob(view, span.start, span.end).data)
            except WireError as error:
                raise WireError(f"history blob {len(history)}: {error}") from None
        else:
            rest.append(view[span.tag : span.end])
    message = decode(SolverState, b"".join(rest))
    extra = {saved.name: _restored(saved) for saved in message.saved}
    return SolverSnapshot(message.iter, message.learned_net, message.current_step, history, extra)


def _saved(name: str, value: Value) -> SavedValue:
    if isinstance(value, str):
        return SavedValue(name=name, text=value)
    if isinstance(value, bytes):
        return SavedValue(name=name, raw=value)
    if isinstance(value, int):
        return SavedValue(name=name, integer=value)
    return SavedValue(name=name, number=value)


def _restored(saved: SavedValue) -> Value:
    if saved.HasField("text"):
        return saved.text
    if saved.HasField("raw"):
        return saved.raw
    return saved.integer if saved.HasField("integer") else saved.number
