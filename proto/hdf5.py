"""Caffe's HDF5 snapshots: the layout of its model and solver state files.

A model has ``/data/<layer>/<i>`` and with ``snapshot_diff`` also ``/diff/<layer>/<i>``; a state
has ``iter``, ``learned_net``, ``current_step`` and ``history/<i>``. What Caffe does not know stands
in the group ``cortado``, one dataset a value.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from .atomic import temporary_beside
from .errors import SnapshotError
from .wire import BlobArray

AnyPath = str | os.PathLike[str]
Value = int | float | str | bytes
_OWN = "cortado"


def read_model(path: AnyPath) -> list[tuple[str, list[BlobArray | None]]]:
    """Each layer's name and blobs; None where only the layer that shares a blob has it."""
    with _open(path) as file:
        if not isinstance(file.get("data"), h5py.Group):
            what = "a solver state; it belongs to --snapshot" if "history" in file else "no weights"
            raise SnapshotError(f"{path}: must have a group 'data' with weights, but is {what}")
        layers = dict(_layers(path, file["data"], ""))
        diffs = dict(_layers(path, file["diff"], "")) if "diff" in file else {}
    result: list[tuple[str, list[BlobArray | None]]] = []
    for name, arrays in layers.items():
        blobs: list[BlobArray | None] = [None] * (max(arrays, default=-1) + 1)
        for index, array in arrays.items():
            blobs[index] = BlobArray(array, diff=diffs.get(name, {}).get(index))
        result.append((name, blobs))
    return result


def write_model(
    path: AnyPath,
    layers: Sequence[tuple[str, Sequence[BlobArray | None]]],
    own: dict[str, Value] | None = None,
) -> None:
    """Write the blobs of ``layers`` (name, blobs); those that are None are left out.

    Caffe passes over the values in ``own``.
    """
    has_diff = any(blob and blob.diff is not None for _, blobs in layers for blob in blobs)
    with _create(path) as file:
        for name, blobs in layers:
            data = file.require_group(f"data/{name}")
            diff = file.require_group(f"diff/{name}") if has_diff else None
            for index, blob in enumerate(blobs):
                if blob is None:
                    continue
                data.create_dataset(str(index), data=np.asarray(blob.data, np.float32))
                if diff is not None and blob.diff is not None:
                    diff.create_dataset(str(index), data=np.asarray(blob.diff, np.float32))
        _write_own(file, own or {})


def _write_own(file: Any, own: dict[str, Value]) -> None:
    for name, value in own.items():
        data = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        file.require_group(_OWN).create_dataset(name, data=data)


def read_own(path: AnyPath) -> dict[str, Value]:
    """The values of our own in a file; empty if Caffe wrote it."""
    with _open(path) as file:
        group = file.get(_OWN)
        if not isinstance(group, h5py.Group):
            return {}
        return {name: _value(group[name]) for name in group}


def read_state(path: AnyPath) -> tuple[int, str, int, list[np.ndarray], dict[str, Value]]:
    """Iteration, name of the weights file, current step, history and values of our own."""
    with _open(path) as file:
        if "history" not in file or "iter" not in file:
            what = "weights; they belong to --weights" if "data" in file else "something else"
            raise SnapshotError(f"{path}: must be a solver state in HDF5, but is {what}")
        history = _arrays(path, file["history"])
        if sorted(history) != list(range(len(history))):
            raise SnapshotError(f"{path}: the history has gaps: {sorted(history)}")
        learned = file["learned_net"][()] if "learned_net" in file else b""
        step = int(np.ravel(file["current_step"][()])[0]) if "current_step" in file else 0
        return (
            int(np.ravel(file["iter"][()])[0]),
            learned.decode("utf-8", "surrogateescape") if isinstance(learned, bytes) else "",
            step,
            [history[index] for index in range(len(history))],
            {name: _value(file[_OWN][name]) for name in file.get(_OWN, {})},
        )


def write_state(
    path: AnyPath,
    iteration: int,
    learned_net: str,
    current_step: int,
    history: Sequence[np.ndarray],
    own: dict[str, Value],
) -> None:
    """Write a solver state that Caffe can read; it passes over the values in ``own``."""
    with _create(path) as file:
        file.create_dataset("iter", data=np.array([iteration], np.int32))
        _write_text(file, "learned_net", learned_net)
        file.create_dataset("current_step", data=np.array([current_step], np.int32))
        group = file.create_group("history")
        for index, array in enumerate(history):
            group.create_dataset(str(index), data=np.asarray(array, np.float32))
        _write_own(file, own)


def _write_text(file: h5py.File, name: str, text: str) -> None:
    """A string that ends in a zero byte: Caffe reads on until it finds one."""
    content = text.encode("utf-8", "surrogateescape") + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(content))
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    scalar = h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, scalar)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(content, f"S{len(content)}"), kind)


def _value(dataset: Any) -> Value:
    value = dataset[()]
    if dataset.dtype.kind == "O":
        return str(value.decode("utf-8"))
    if dataset.ndim == 1:
        return bytes(value.tobytes())
    return int(value) if dataset.dtype.kind in "iu" else float(value)


def _layers(path: AnyPath, group: Any, prefix: str) -> Iterator[tuple[str, dict[int, np.ndarray]]]:
    """The layers in ``group``: a slash in a layer's name has made it a group within a group."""
    for name in group:
        inner = _member(path, group, name)
        if not isinstance(inner, h5py.Group):
            continue
        arrays = _arrays(path, inner)
        nested = list(_layers(path, inner, f"{prefix}{name}/"))
        if arrays or not nested:
            yield f"{prefix}{name}", arrays
        yield from nested


def _arrays(path: AnyPath, group: Any) -> dict[int, np.ndarray]:
    """The numbered datasets of ``group`` as float32."""
    found: dict[int, np.ndarray] = {}
    for name in group:
        dataset = _member(path, group, name)
        if not isinstance(dataset, h5py.Dataset):
            continue
        if not name.isdecimal() or int(name) > 10_000 or dataset.dtype.kind != "f":
            raise SnapshotError(f"{path}: {dataset.name} is no blob of floats with a number")
        found[int(name)] = dataset[()].astype(np.float32, copy=False)
    return found


def _member(path: AnyPath, group: Any, name: str) -> Any:
    """A member of ``group`` that lies in this very file: a link could lead to any other."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise SnapshotError(f"{path}: {group.name}/{name} is a link, which weights never hold")
    member = group[name]
    if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
        raise SnapshotError(f"{path}: {member.name} keeps its data in another file")
    return member


@contextlib.contextmanager
def _open(path: AnyPath) -> Iterator[Any]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise SnapshotError(f"{path}: is damaged or cut off: {error}") from None


@contextlib.contextmanager
def _create(path: AnyPath) -> Iterator[Any]:
    with temporary_beside(path) as temporary, h5py.File(temporary, "w") as file:
        yield file
