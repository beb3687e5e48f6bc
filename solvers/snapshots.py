"""Writing snapshots in Caffe's formats and continuing from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..netdef import Net, ParamRef
from ..netdef.state_dicts import write_state_dict
from ..netdef.torch_names import own_names
from ..netdef.weights import collect
from ..proto.caffe_pb2 import NetParameter, SolverParameter
from ..proto.errors import ConfigError, Fault, SnapshotError
from ..proto.state import SolverSnapshot, read_state, write_state, write_state_hdf5
from ..proto.weights import (
    MAX_BINARY_BYTES,
    BlobArray,
    LayerBlobs,
    read_weights,
    write_weights,
    write_weights_hdf5,
)
from . import manifest, restore
from .requirements import SolverDocument, place

if TYPE_CHECKING:
    from .solver import Solver

#: Key of our own part of a state among its extra values.
RESUME = "resume"
#: What stands before the iteration in the names of regular snapshots, and of the best ones.
REGULAR, BEST = "iter", "best_iter"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment, copied to the host: can be written while training goes on."""

    prefix: str
    weights_path: Path
    state_path: Path
    hdf5: bool
    definition: NetParameter
    blobs: list[LayerBlobs]
    state: SolverSnapshot
    #: Weights beside the raw ones: path and blobs.
    further: list[tuple[Path, list[LayerBlobs]]] = field(default_factory=list)
    #: Files of weights by the names of their tensors, for those that want no Caffe.
    by_name: dict[Path, dict[str, torch.Tensor]] = field(default_factory=dict)

    def write(self) -> None:
        """Write weights, then state, then their checksums; each appears complete or not at all."""
        for path, blobs in [(self.weights_path, self.blobs), *self.further]:
            if self.hdf5:
                write_weights_hdf5(path, blobs, self.definition)
            else:
                write_weights(path, self.definition, blobs)
        for path, tensors in self.by_name.items():
            write_state_dict(path, tensors, known=self.definition.preprocessing)
        (write_state_hdf5 if self.hdf5 else write_state)(self.state_path, self.state)
        manifest.record(self.prefix, *self.files)

    @property
    def files(self) -> list[Path]:
        """All files of the snapshot."""
        further = (path for path, _ in self.further)
        return [self.weights_path, *further, *self.by_name, self.state_path]

    @property
    def bytes(self) -> int:
        """What the arrays take, about the size of the files."""
        blobs = [blob for layer in self.blobs for blob in layer.blobs if blob is not None]
        arrays = [blob.data for blob in blobs] + [b.diff for b in blobs if b.diff is not None]
        return sum(array.nbytes for array in [*arrays, *self.state.history])


def paths(solver: Solver, label: str = REGULAR) -> tuple[Path, Path, bool]:
    """Weights path, state path, and whether they are HDF5, for the solver's present iteration."""
    parameters = solver.parameters
    hdf5 = parameters.snapshot_format == SolverParameter.HDF5
    stem = f"{parameters.snapshot_prefix}_{label}_{solver.iteration}"
    ending = ".h5" if hdf5 else ""
    return Path(f"{stem}.caffemodel{ending}"), Path(f"{stem}.solverstate{ending}"), hdf5


def take(solver: Solver, label: str = REGULAR) -> Snapshot:
    """Copy everything a snapshot holds to the host."""
    weights_path, state_path, hdf5 = paths(solver, label)
    history = [_host_copy(tensor) for tensor in solver.updater.history_list()]
    extra = {RESUME: json.dumps(restore.capture(solver))}
    state = SolverSnapshot(
        solver.iteration, str(weights_path), solver.current_step, history, dict(extra)
    )
    blobs = _blobs(solver, with_sharers=not hdf5)
    further = _further(solver, blobs, label)
    by_name = {}
    if solver.parameters.snapshot_safetensors:
        for path, layers in [(weights_path, blobs), *further]:
            by_name[_safetensors_path(path)] = own_names(layers, solver.net.steps)
    return Snapshot(
        solver.parameters.snapshot_prefix,
        weights_path,
        state_path,
        hdf5,
        solver.net.to_message(),
        blobs,
        state,
        further,
        by_name,
    )


def _safetensors_path(weights: Path) -> Path:
    """run_iter_5.caffemodel (or .caffemodel.h5) has run_iter_5.safetensors beside it."""
    return weights.with_name(weights.name.partition(".caffemodel")[0] + ".safetensors")


def check_size(document: SolverDocument, net: Net, slots: int) -> None:
    """ConfigError if snapshots in binary form could not hold the weights of ``net``, or ``slots``
    values of history for each of them: it is known before training that they cannot be written.
    """
    parameters = document.message
    wanted = parameters.snapshot or parameters.snapshot_after_train
    if parameters.snapshot_format == SolverParameter.HDF5 or not (
        parameters.snapshot_prefix and wanted
    ):
        return
    held = sum(
        step.layer.blob(n).numel() for step in net.steps for n in range(len(step.layer.blobs))
    )
    sizes = {
        "weights": held * (8 if parameters.snapshot_diff else 4),
        "solver state": sum(param.tensor.numel() for param in net.params) * 4 * slots,
    }
    for what, size in sizes.items():
        if size > MAX_BINARY_BYTES:
            raise ConfigError(
                Fault(
                    f"snapshot_format must be HDF5: the {what} would take {size:,} bytes, and "
                    f"protobuf reads at most {MAX_BINARY_BYTES:,}",
                    place(document, "snapshot_format"),
                )
            )


def _further(
    solver: Solver, blobs: list[LayerBlobs], label: str
) -> list[tuple[Path, list[LayerBlobs]]]:
    """The further weights of all hooks, laid out as ``blobs``, each with its path."""
    numbers = _owner_of_shared(solver.net)
    found = []
    for hook in solver.hooks:
        for name, tensors in hook.further_weights().items():
            path, _, _ = paths(solver, f"{name}_{label}")
            arrays = [_host_copy(tensor) for tensor in tensors]
            layers = [_like(layer, arrays, numbers) for layer in blobs]
            found.append((path, layers))
    return found


def _like(
    layer: LayerBlobs, arrays: list[np.ndarray], numbers: dict[tuple[str, int], int]
) -> LayerBlobs:
    """``layer`` with the blobs of ``arrays``, which has one for each of the net's parameters."""
    blobs: list[BlobArray | None] = []
    for index, blob in enumerate(layer.blobs):
        array = arrays[numbers[layer.name, index]]
        blobs.append(None if blob is None else BlobArray(array.reshape(blob.data.shape)))
    return LayerBlobs(layer.name, layer.type, blobs)


def _load_further(solver: Solver, state: Path, entries: dict[str, manifest.Entry]) -> None:
    """Give hooks back their further weights, from the files beside the state."""
    for hook in solver.hooks:
        weights = {}
        for name in hook.further_weights():
            path = manifest.sibling(state, name)
            if path.is_file():
                manifest.verify(path, entries)
                layers = {layer.name: layer.blobs for layer in read_weights(path)}
                weights[name] = [_blob(layers, param) for param in solver.net.params]
        hook.load_further_weights(weights)


def _host_copy(tensor: torch.Tensor) -> np.ndarray:
    """A copy in the host's memory, with the axes in order.

    numpy's memory comes in huge pages, and torch copies into it with all threads: training waits
    for this, and most of the time would otherwise go into touching fresh pages.
    """
    array = np.empty(tensor.shape, np.float32)
    torch.from_numpy(array).copy_(tensor.detach())
    return array


def _blobs(solver: Solver, with_sharers: bool) -> list[LayerBlobs]:
    """The weights; with snapshot_diff also what the last update subtracted from them."""
    owners = {(param.layer, param.index): n for n, param in enumerate(solver.net.params)}
    differences = solver.updater.difference if solver.parameters.snapshot_diff else []
    layers = collect(solver.net)
    shared = _owner_of_shared(solver.net)
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            if blob is None:
                continue
            number = owners.get((layer.name, index))
            if number is None and not with_sharers:
                layer.blobs[index] = None
                continue
            if number is None:
                number = shared.get((layer.name, index))
            difference = None
            if solver.parameters.snapshot_diff:
                known = number is not None and number < len(differences)
                difference = (
                    _host_copy(differences[number]).reshape(blob.data.shape)
                    if known and number is not None
                    else np.zeros_like(blob.data)
                )
            copied = _host_copy(torch.from_numpy(blob.data))
            layer.blobs[index] = replace(blob, data=copied, diff=difference)
    return layers


def _blob(layers: dict[str, list[BlobArray | None]], param: ParamRef) -> torch.Tensor:
    """The values of one parameter; SnapshotError if they are missing or of another size."""
    blobs = layers.get(param.layer, [])
    blob = blobs[param.index] if param.index < len(blobs) else None
    if blob is None or blob.data.size != param.tensor.numel():
        raise SnapshotError(f"averaged weights of {param.name} are missing or of another shape")
    return torch.from_numpy(blob.data).view(param.tensor.shape)


def _owner_of_shared(net: Net) -> dict[tuple[str, int], int]:
    """For every blob of every layer, the number of the parameter whose memory it is."""
    by_address = {param.tensor.data_ptr(): n for n, param in enumerate(net.params)}
    return {
        (step.name, index): by_address[address]
        for step in net.steps
        for index in range(len(step.layer.blobs))
        if (address := step.layer.blob(index).data_ptr()) in by_address
    }


def load(solver: Solver, path: Path, accept_changes: bool = False) -> None:
    """Continue ``solver`` from the state file ``path`` and the weights it names.

    SnapshotError for a damaged file, another solver type or net, or, unless ``accept_changes``,
    a net or solver that was edited since.
    """
    prefix = manifest.prefix_of(path)
    entries = manifest.read(prefix) if prefix else {}
    if path.is_file():
        manifest.verify(path, entries)
    state = read_state(path)
    weights = manifest.weights_of(path, state.learned_net)
    manifest.verify(weights, entries)
    resume = _resume_state(state, path)
    if resume and not accept_changes:
        restore.compare(solver, resume["digest"], str(path))
    solver.updater.check_history([array.shape for array in state.history], str(path))
    solver.net.load(weights)
    solver.updater.load_history([torch.from_numpy(array) for array in state.history])
    solver.iteration, solver.current_step = state.iter, state.current_step
    _load_further(solver, path, entries)
    if resume:
        restore.release(solver, resume, str(path))


def _resume_state(state: SolverSnapshot, path: Path) -> dict | None:
    """Our own part of a state, None if Caffe wrote it."""
    text = state.extra.get(RESUME)
    if text is None:
        return None
    try:
        resume = json.loads(str(text))
    except ValueError:
        resume = None
    if not isinstance(resume, dict):
        raise SnapshotError(f"{path}: its resume state cannot be read")
    return resume


def latest(prefix: str, notice: Callable[[str], None]) -> Path | None:
    """The newest complete snapshot of a prefix; what speaks against newer ones goes to ``notice``.

    This is what ``--snapshot=auto`` continues from; None means to start afresh.
    """
    rejected: list[str] = []
    found = manifest.find_latest(prefix, rejected)
    for reason in rejected:
        notice(f"snapshot passed over: {reason}")
    return found
