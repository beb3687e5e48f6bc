"""The zoo from Python: ``cortado.zoo.load("resnet50", weights="zoo:resnet50")``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..proto.caffe_pb2 import NetParameter
from ..proto.errors import SnapshotError
from ..proto.files import read_net
from ..proto.folders import Cache
from ..proto.weights import Weights
from . import download, index
from .index import Model, WeightsEntry

if TYPE_CHECKING:
    import torch

    from ..netdef import Net
    from ..netdef.blueprint import Blueprint
    from ..netdef.steps import Step

__all__ = [
    "class_names",
    "load",
    "names",
    "open_weights",
    "pull",
    "verify",
]

SCHEME = "zoo"
#: The input of every model for use.
INPUT = "data"


def names() -> list[str]:
    """The models there are."""
    return list(index.models())


def load(
    name: str,
    weights: str | Path | None = None,
    phase: str | int = "TEST",
    *,
    batch: int | None = None,
    variables: Mapping[str, object] | None = None,
    device: torch.device | str = "cpu",
) -> Net:
    """The net of the model ``name``, with random weights or those of a file or name.

    ``weights="zoo:NAME"`` takes published ones, which are downloaded on first use; a state dict in
    a file may have the names of torchvision's model or of timm's. In the phase TEST it is the net
    for use: images go in, probabilities come out. In TRAIN it is the net that learns: from the
    databases that its definition names or, if ``batch`` is given, from as many images and labels
    that are passed to it. ``variables`` are values for variables of its definition, as ``--set``
    gives them.
    """
    from ..netdef import Net
    from ..netdef.state import parse_phase
    from ..proto.caffe_pb2 import TEST

    model = index.find(name)
    if parse_phase(phase) == TEST:
        definition = deployed(model, batch or 1, variables)
    else:
        definition = read_net(model.net_file, variables).message
        if batch is not None:
            feed(definition, (batch, *model.input))
    net = Net(definition, phase, device=device)
    if weights is not None:
        from ..netdef.weights import read
        from .published_names import rules

        net.load(read(weights, net.steps, rules(model)))
    return net


def deployed(
    model: Model, batch: int = 1, variables: Mapping[str, object] | None = None
) -> NetParameter:
    """The model's net for use, for ``batch`` images at a time."""
    from ..netdef.deploy import deploy

    document = read_net(model.net_file, variables)
    return deploy(document, {INPUT: (batch, *model.input)})


def feed(net: NetParameter, shape: Sequence[int]) -> None:
    """Let Input layers take the place of databases: images of ``shape`` and labels come from the
    caller."""
    for layer in net.layer:
        if layer.type == "Data":
            for field in ("data_param", "transform_param"):
                layer.ClearField(field)
            layer.type = "Input"
            layer.input_param.shape.add(dim=shape)
            layer.input_param.shape.add(dim=shape[:1])


def pull(
    name: str, *, mirror: str | None = None, progress: download.Progress | None = None
) -> Path:
    """The file of the weights ``MODEL[@WEIGHTS]``, downloaded unless it is there already.

    ``mirror`` (or the environment variable CORTADO_MIRROR) is the address of a folder to take the
    file from instead; ``file:///…`` serves a machine without internet.
    """
    model, weights = index.split_name(name)
    return _file(model.find_weights(weights), mirror, progress)


def _file(
    entry: WeightsEntry, mirror: str | None = None, progress: download.Progress | None = None
) -> Path:
    if entry.shipped is not None:
        return entry.shipped
    assert entry.remote is not None
    if mirror is None:
        mirror = os.environ.get("CORTADO_MIRROR", "")
    Cache.WEIGHTS.make()
    return download.obtain(entry.remote, _folder(entry), mirror=mirror, progress=progress)


def _folder(entry: WeightsEntry) -> Path:
    return Cache.WEIGHTS.path / entry.model


def open_weights(name: str, **options: Any) -> Weights:
    """The weights ``MODEL[@WEIGHTS]`` as blobs of the model's layers; options as for :func:`pull`.

    What opens the names ``zoo:MODEL[@WEIGHTS]``.
    """
    model, weights = index.split_name(name)
    entry = model.find_weights(weights)
    return read_entry(model, entry, _file(entry, **options))


def read_entry(model: Model, entry: WeightsEntry, path: Path) -> Weights:
    """The weights ``entry`` of ``model`` from their file, with the preprocessing of the index."""
    from ..netdef import weights
    from .published_names import rules

    layout = rules(model) if entry.layout == "torchvision" else None
    found = weights.read(path, learning_steps(model), layout)
    found.preprocessing = found.preprocessing or [entry.preprocessing.to_message(INPUT)]
    return found


def learning_steps(model: Model) -> list[Step]:
    """The layers of the model that learns, heads that only help to learn among them."""
    from ..netdef import blueprint

    definition = read_net(model.net_file).message
    feed(definition, (1, *model.input))
    return blueprint.draw(definition, "TRAIN").steps


def plan(model: Model) -> Blueprint:
    """The model's layers, built without memory for their parameters."""
    from ..netdef import blueprint

    return blueprint.draw(deployed(model), "TEST")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :func:`verify` found: the file, how many layers got weights from it, which did not."""

    path: Path
    copied: int
    left: list[str]
    ignored: list[str]


def verify(name: str) -> Verdict:
    """Check weights that were pulled: their digest, and that every layer of the model gets some.

    SnapshotError if they are not there, are not what was published, or do not fit.
    """
    model, weights = index.split_name(name)
    entry = model.find_weights(weights)
    path = entry.shipped or _folder(entry) / entry.file_name
    if not path.exists():
        raise SnapshotError(f"zoo: {entry.full_name} is not in {_folder(entry)}; pull it first")
    download.verify(entry.checksum, path)
    report = load(model.name).load(read_entry(model, entry, path))
    return Verdict(path, len(report.copied), report.untouched, report.ignored)


def class_names(name: str) -> list[str]:
    """What the model's outputs stand for, in order; numbers where nobody has named them."""
    model = index.find(name)
    file = model.folder / "classes.txt"
    if file.exists():
        return file.read_text("utf-8").splitlines()
    if model.classes == 1000:  # every ImageNet model has the challenge's order
        from torchvision.models import ResNet18_Weights

        return list(ResNet18_Weights.DEFAULT.meta["categories"])
    return [str(number) for number in range(model.classes)]
