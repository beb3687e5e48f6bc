"""Copying weights between files and a net, by layer name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..proto import schemes
from ..proto.caffe_pb2 import NetParameter, Preprocessing
from ..proto.errors import WeightsError
from ..proto.mapped import mapped
from ..proto.recognise import PICKLE, SAFETENSORS, ZIP, recognise
from ..proto.weights import (
    BlobArray,
    LayerBlobs,
    Weights,
    read_preprocessing,
    read_weights,
    write_weights,
    write_weights_hdf5,
)
from . import state_dicts, torch_names

if TYPE_CHECKING:
    from .net import Net
    from .steps import Step

WeightsSource = str | Path | Weights | Sequence[str | Path]


@dataclass(slots=True)
class CopyReport:
    """What loading did, in names of layers.

    ``copied`` and ``ignored`` (in the file only) are the source's layers; ``fresh`` were to start
    anew, ``untouched`` are not in the file, ``mismatched`` do not fit (with the reason).
    """

    source: str
    copied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)

    def groups(self) -> list[tuple[str, list[str]]]:
        """What happened, and to which layers; only what happened to some."""
        named = (
            ("copied", self.copied),
            ("re-initialised as asked", self.fresh),
            ("left as initialised", self.untouched),
            ("in the file only", self.ignored),
            ("do not fit", self.mismatched),
        )
        return [(what, names) for what, names in named if names]

    def __str__(self) -> str:
        lines = [f"weights from {self.source}:"]
        for what, names in self.groups():
            lines.append(f"  {what} ({len(names)}): {', '.join(names)}")
        return "\n".join(lines)


def load(net: Net, source: WeightsSource, fresh: Sequence[str] = ()) -> CopyReport:
    """Copy the blobs of every layer that ``source`` and ``net`` both have.

    ``fresh`` are shell patterns of layers that keep their fillers' values. Several files are
    applied in order; the report is that of all together. Raises WeightsError, before anything is
    changed, if a blob's shape or count differs or if nothing matches.
    """
    report: CopyReport | None = None
    for each in _several(source):
        latest = _copy(net, read(each, net.steps), fresh)
        if report is None:
            report = latest
        else:
            report.source += f", {latest.source}"
            report.copied += [name for name in latest.copied if name not in report.copied]
            report.ignored += latest.ignored
            report.untouched = [name for name in report.untouched if name in latest.untouched]
    if report is None:
        raise WeightsError("no weights file is given")
    return report


def read(
    source: str | Path | Weights,
    steps: Sequence[Step],
    rules: torch_names.NameRules | None = None,
) -> Weights:
    """Weights from a file of any format, told from its content, or from a name such as zoo:lenet.

    The tensors of a state dict find their layers among ``steps`` (see :mod:`.torch_names`), if
    need be by ``rules``.
    """
    if isinstance(source, Weights):
        return source
    if found := schemes.opener_of(str(source)):
        opener, name = found
        return opener(name)
    with mapped(source) as view:
        what = recognise(view)
    if what in (SAFETENSORS, ZIP, PICKLE):
        tensors, known = state_dicts.read_state_dict(source, what)
        weights = torch_names.to_weights(tensors, steps, str(source), rules)
        weights.preprocessing = known
        return weights
    return read_weights(source)


def recorded(source: str | Path) -> list[Preprocessing]:
    """How the images that weights were trained on were prepared, whatever the format; reads as
    little else as that allows. Empty where the file is silent."""
    if found := schemes.opener_of(str(source)):
        opener, name = found
        return opener(name).preprocessing
    with mapped(source) as view:
        what = recognise(view)
    if what in (SAFETENSORS, ZIP, PICKLE):
        return state_dicts.read_preprocessing(source, what)
    return read_preprocessing(source)


def _several(source: WeightsSource) -> Iterable[str | Path | Weights]:
    if isinstance(source, str):
        return [name for part in source.split(",") if (name := part.strip())]
    if isinstance(source, Path | Weights):
        return [source]
    return source


def _copy(net: Net, weights: Weights, fresh: Sequence[str]) -> CopyReport:
    report = CopyReport(weights.path)
    steps = {step.name: step for step in net.steps}
    pending: list[tuple[torch.Tensor, np.ndarray]] = []
    for layer in weights.layers:
        step = steps.get(layer.name)
        if step is None:
            if layer.blobs:
                report.ignored.append(layer.name)
            continue
        if not layer.blobs and not step.layer.blobs:
            continue
        if any(fnmatchcase(layer.name, pattern) for pattern in fresh):
            report.fresh.append(layer.name)
            continue
        problem = _problem(step, layer)
        if problem:
            report.mismatched.append(f"{layer.name} ({problem})")
            continue
        report.copied.append(layer.name)
        for index, blob in enumerate(layer.blobs):
            if blob is not None:
                pending.append((step.layer.blob(index), blob.data))
    known = [step.name for step in net.steps if step.layer.blobs]
    accounted = {*report.copied, *report.fresh}
    report.untouched = [name for name in known if name not in accounted]
    if report.mismatched:
        raise WeightsError(
            f"{report}\nname or rename the layers that shall start anew "
            "(cortado train --fresh LAYER, --head LAYER), or give weights that fit"
        )
    if not report.copied:
        raise WeightsError(
            f"{weights.path}: none of its layers ({_few(each.name for each in weights.layers)}) "
            f"is in net {net.name!r} ({_few(known)})"
        )
    with torch.no_grad():
        for target, values in pending:
            target.copy_(torch.from_numpy(np.ascontiguousarray(values)).view(target.shape))
    net.recorded.update((each.blob, each) for each in weights.preprocessing)
    return report


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "")


def _problem(step: Step, layer: LayerBlobs) -> str:
    """Why the blobs of ``layer`` cannot be those of ``step``, or an empty string."""
    own = step.layer.blobs
    if len(layer.blobs) != len(own):
        return f"{len(layer.blobs)} blobs in the file, {len(own)} in the net"
    for index, blob in enumerate(layer.blobs):
        if blob is None:
            continue
        needed = tuple(step.layer.blob(index).shape)
        found = tuple(blob.data.shape)
        fits = legacy_equal(found, needed) if blob.legacy_shape else found == needed
        if not fits:
            return f"{own[index].name}: {list(found)} in the file, {list(needed)} in the net"
    return ""


def legacy_equal(found: Sequence[int], needed: Sequence[int]) -> bool:
    """Whether a legacy 4-axis shape is ``needed`` when right-aligned (1x1xMxN fits MxN)."""
    if len(needed) > 4:
        return False
    return tuple(found) == (1,) * (4 - len(needed)) + tuple(needed)


def collect(net: Net, diff: bool = False) -> list[LayerBlobs]:
    """The parameter blobs of every layer; with ``diff`` their gradients as well."""
    layers = []
    for step in net.steps:
        if step.layer.blobs:
            blobs: list[BlobArray | None] = [
                _array(step, index, diff) for index in range(len(step.layer.blobs))
            ]
            layers.append(LayerBlobs(step.name, step.type, blobs))
    return layers


def _array(step: Step, index: int, diff: bool) -> BlobArray:
    tensor = step.layer.blob(index)
    gradient = None
    if diff:
        gradient = _numpy(tensor.grad if tensor.grad is not None else torch.zeros_like(tensor))
    return BlobArray(_numpy(tensor), diff=gradient)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def save(
    net: Net,
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    known: Sequence[Preprocessing] | None = None,
    definition: NetParameter | None = None,
) -> None:
    """Write the net's weights, in the format that the ending of ``path`` names.

    ``.h5`` is Caffe's HDF5, ``.safetensors`` and ``.pth`` hold a state dict (stored as ``dtype``)
    whose names are ``layer.blob``; every other name gives a .caffemodel. How images are prepared is
    stored with them, as the net knows it or as ``known`` says; a .caffemodel has the net as it was
    built, or ``definition``.
    """
    suffix = Path(path).suffix
    message = NetParameter()
    message.CopyFrom(definition or net.to_message())
    if known is not None:
        del message.preprocessing[:]
        message.preprocessing.extend(known)
    if suffix == ".h5":
        write_weights_hdf5(path, collect(net), message)
    elif suffix in state_dicts.SAFETENSORS_SUFFIXES + state_dicts.TORCH_SUFFIXES:
        named = torch_names.own_names(collect(net), net.steps)
        state_dicts.write_state_dict(path, named, dtype, message.preprocessing)
    else:
        write_weights(path, message, collect(net))
