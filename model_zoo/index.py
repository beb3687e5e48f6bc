"""The index of the zoo: index.toml as checked objects."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..proto import caffe_pb2
from ..proto.errors import ConfigError, nearest
from .download import Checksum, RemoteFile

FOLDER = Path(__file__).parent

#: How much larger than its publisher says, or than its parameters, a file may be before it is
#: refused. Weights may come with a training's auxiliary heads.
SIZE_SLACK = 1.5
BYTES_PER_PARAMETER = 16


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the net's input.

    ``channels`` is the order "RGB", "BGR" or "GRAY" of values from 0 to 255; the short side is
    scaled to ``resize`` pixels (both sides where ``square``) and the centre of ``crop`` pixels cut
    out; ``mean`` is subtracted and the rest multiplied by ``scale``, each for every channel.
    """

    channels: str
    resize: int
    crop: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    square: bool = False

    def __str__(self) -> str:
        sides = "both sides" if self.square else "the short side"
        crop = f", the centre of {self.crop} pixels" if self.crop != self.resize else ""
        minus = f", minus {_values(self.mean)}" if any(self.mean) else ""
        times = f", times {_values(self.scale)}" if set(self.scale) != {1.0} else ""
        return f"{self.channels}; {sides} scaled to {self.resize} pixels{crop}{minus}{times}"

    def to_message(self, blob: str) -> caffe_pb2.Preprocessing:
        """The same as weights carry it, for the input ``blob``."""
        message = caffe_pb2.Preprocessing(
            blob=blob,
            channels=len(self.channels) if self.channels != "GRAY" else 1,
            height=self.crop,
            width=self.crop,
            channel_order=self.channels,
            crop_size=self.crop,
            mean_value=self.mean,
        )
        if self.square:
            message.resize_height = message.resize_width = self.resize
        else:
            message.resize_side = self.resize
        if len(set(self.scale)) == 1:
            message.scale = self.scale[0]
        else:
            message.scale_value.extend(self.scale)
        return message


def _values(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One set of published weights of a model.

    ``shipped`` is a file in the model's folder, ``remote`` one to download, ``checksum`` the
    file's. ``layout`` is "caffe" for blobs by layer name and "torchvision" for a state dict with
    torchvision's names.
    Accuracies are in percent, on ImageNet's validation images unless ``note`` says otherwise.
    """

    model: str
    name: str
    layout: str
    licence: str
    preprocessing: Preprocessing
    checksum: Checksum
    remote: RemoteFile | None = None
    shipped: Path | None = None
    top1: float | None = None
    top5: float | None = None
    note: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.model}@{self.name}"

    @property
    def file_name(self) -> str:
        if self.shipped is not None:
            return self.shipped.name
        assert self.remote is not None
        return self.remote.name


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its definition, its published numbers, and where its weights are.

    ``input`` is one image's shape; ``parameters`` counts what is learned, ``macs`` the
    multiply-accumulate operations of one image. ``torchvision`` and ``timm`` are the names that the
    same net has there, if it is there. torchvision's modules are our layers by name, or
    ``in_order``; ``names`` are the families of names.toml whose rules apply to published state
    dicts.
    """

    name: str
    title: str
    paper: str
    input: tuple[int, ...]
    classes: int
    parameters: int
    macs: int
    preprocessing: Preprocessing
    torchvision: str = ""
    timm: str = ""
    names: tuple[str, ...] = ()
    in_order: bool = False
    top1: float | None = None
    top5: float | None = None
    source: str = ""
    notes: str = ""
    own_weights: tuple[WeightsEntry, ...] = ()

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def net_file(self) -> Path:
        return self.folder / "net.prototxt"

    @property
    def solver_file(self) -> Path:
        return self.folder / "solver.prototxt"

    def weights(self) -> dict[str, WeightsEntry]:
        """All published weights by name, the default first; asks torchvision for its own."""
        entries = [*self.own_weights, *_torchvision_weights(self)]
        return {entry.name: entry for entry in entries}

    def find_weights(self, name: str = "") -> WeightsEntry:
        """The weights called ``name``, or the default ones; ConfigError if there are none."""
        entries = self.weights()
        if not entries:
            raise ConfigError(f"zoo: no weights are published for {self.name!r}; train it")
        if not name:
            return next(iter(entries.values()))
        if name not in entries:
            raise ConfigError(
                f"zoo: {self.name!r} has no weights {name!r}{nearest(name, entries)} "
                f"(there are {', '.join(entries)})"
            )
        return entries[name]


@functools.cache
def models() -> Mapping[str, Model]:
    """Every model by name, in the order of the index."""
    content = tomllib.loads((FOLDER / "index.toml").read_text("utf-8"))
    ways = {name: _preprocessing(table) for name, table in content["preprocessing"].items()}
    return {name: _model(name, table, ways) for name, table in content["models"].items()}


def find(name: str) -> Model:
    """The model called ``name``; ConfigError with the nearest name if there is none."""
    found = models().get(name)
    if found is None:
        raise ConfigError(
            f"zoo: there is no model {name!r}{nearest(name, models())} (see cortado zoo list)"
        )
    return found


def split_name(name: str) -> tuple[Model, str]:
    """The model and the name of weights (empty: the default) in ``MODEL[@WEIGHTS]``."""
    model, _, weights = name.partition("@")
    return find(model), weights


def _preprocessing(table: dict[str, Any]) -> Preprocessing:
    return Preprocessing(
        table["channels"],
        table["resize"],
        table["crop"],
        tuple(table["mean"]),
        tuple(table["scale"]),
        table.get("square", False),
    )


def _model(name: str, table: dict[str, Any], ways: Mapping[str, Preprocessing]) -> Model:
    table = dict(table)
    way = ways[table.pop("preprocessing")]
    stored = table.pop("weights", {})
    limit = table["parameters"] * BYTES_PER_PARAMETER
    own = tuple(_weights(name, each, entry, way, limit) for each, entry in stored.items())
    shape, families = tuple(table.pop("input")), tuple(table.pop("names", ()))
    return Model(name, input=shape, preprocessing=way, names=families, own_weights=own, **table)


def _weights(
    model: str, name: str, table: dict[str, Any], way: Preprocessing, limit: int
) -> WeightsEntry:
    table = dict(table)
    algorithm = next(each for each in ("sha256", "sha1") if each in table)
    checksum = Checksum(algorithm, table.pop(algorithm))
    if "file" in table:
        file = FOLDER / model / table.pop("file")
        where = {"shipped": file}
    else:
        where = {"remote": RemoteFile(table.pop("url"), checksum, max_bytes=limit)}
    return WeightsEntry(model, name, preprocessing=way, checksum=checksum, **where, **table)


def _torchvision_weights(model: Model) -> Iterable[WeightsEntry]:
    """What torchvision publishes for a model, as its weight enums say."""
    if not model.torchvision:
        return
    from torchvision.models import get_model_weights

    enum = get_model_weights(model.torchvision)
    default = enum.DEFAULT if "DEFAULT" in enum.__members__ else None
    for member in sorted(enum, key=lambda each: each is not default):
        found = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", member.url)
        accuracy = next(iter(member.meta["_metrics"].values()))
        way = member.transforms()
        if found is None or way.crop_size != [model.input[-1]]:
            continue  # for images of another size, with other position embeddings
        checksum = Checksum("sha256", found[1])
        yield WeightsEntry(
            model.name,
            member.name.lower(),
            "torchvision",
            member.meta.get("license", "BSD-3-Clause (torchvision); ImageNet's terms may apply"),
            replace(model.preprocessing, resize=way.resize_size[0]),
            checksum,
            RemoteFile(
                member.url,
                checksum,
                int(member.meta["_file_size"] * 2**20 * SIZE_SLACK),
            ),
            top1=accuracy["acc@1"],
            top5=accuracy["acc@5"],
        )
