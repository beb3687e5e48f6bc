"""Which entry of a torch state dict is which parameter blob of a net, found by rule.

A key ``a.b.weight`` belongs to the blob ``weight`` of the layer ``a.b``. Torch keeps in one
BatchNorm module what Caffe keeps in two layers: its running statistics are the blobs of the layer
with the module's name, its weight and bias those of the Scale layer that follows in the graph. A
tensor of its own (a position embedding, a layer scale) is the only blob of the layer it names.

Where the layers of a net go by other names than the modules, ``renames`` turn keys into what the
rules above understand, or the modules, listed in running order, are matched with the layers in
order. The order of a file's keys never matters: safetensors files have theirs sorted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..layers.base import Shape
from ..layers.batch_norm import BatchNorm
from ..proto.errors import WeightsError
from ..proto.weights import BlobArray, LayerBlobs, Weights
from .state_dicts import StateDict

if TYPE_CHECKING:
    from .steps import Step

#: Names that torch's BatchNorm has for the blobs of ours.
_STATISTICS = {"running_mean": "mean", "running_var": "variance"}
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Rename:
    """What of a key matches ``pattern`` becomes ``replacement``, as in :func:`re.sub`.

    With ``numbers``, ``{n}`` in the replacement is the number at the place that the pattern's group
    ``stage`` gives, plus its group ``block`` if it has one: what counts blocks in stages becomes
    what counts them through.
    """

    pattern: str
    replacement: str
    numbers: tuple[int, ...] = ()

    def apply(self, key: str) -> str:
        return re.sub(self.pattern, self._expand if self.numbers else self.replacement, key)

    def _expand(self, found: re.Match[str]) -> str:
        groups = found.groupdict()
        stage = int(groups["stage"])
        if stage >= len(self.numbers):
            return found[0]
        number = self.numbers[stage] + int(groups.get("block") or 0)
        return found.expand(self.replacement).replace("{n}", str(number))


@dataclass(frozen=True, slots=True)
class NameRules:
    """How a model's state dict is named.

    ``renames`` are applied to each key in turn. ``modules`` are names of modules, as many as the
    net has layers with parameters and in the same order.
    """

    renames: tuple[Rename, ...] = ()
    modules: tuple[str, ...] = ()

    def apply(self, key: str) -> str:
        for rename in self.renames:
            key = rename.apply(key)
        return key


@dataclass(frozen=True, slots=True)
class Slot:
    """The blob ``index`` of ``step``."""

    step: Step
    index: int

    @property
    def blob(self) -> str:
        return self.step.layer.blobs[self.index].name

    @property
    def shape(self) -> Shape:
        return tuple(self.step.layer.blob(self.index).shape)


@dataclass(slots=True)
class Matching:
    """The slot of each key that has one, and the keys that have none."""

    slots: dict[str, Slot] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


def match(keys: Iterable[str], steps: Sequence[Step], rules: NameRules | None = None) -> Matching:
    """Find the blob of every key of a state dict.

    WeightsError if the rules list other numbers of modules than there are layers.
    """
    rules = rules or NameRules()
    layers = {step.name: step for step in steps if step.layer.blobs}
    # Blocks put a slash where torch puts a dot. Torch modules cannot have a dot in their names: in
    # a Net's own state dict an underscore stands for it.
    layers |= {name.replace("/", "."): step for name, step in layers.items() if "/" in name}
    layers |= {name.replace(".", "_"): step for name, step in layers.items() if "." in name}
    scales = _scales(steps)
    layers |= _in_order(rules.modules, steps, scales)
    result = Matching()
    for key in keys:
        if key.endswith(_COUNTER):
            continue
        slot = _slot(rules.apply(key), layers, scales)
        if slot is None:
            result.unmatched.append(key)
        else:
            result.slots[key] = slot
    return result


def _scales(steps: Sequence[Step]) -> dict[str, Step]:
    """The Scale layer that takes a BatchNorm's top, by the name of the BatchNorm."""
    found = {}
    for position, step in enumerate(steps):
        if step.type != "BatchNorm":
            continue
        for later in steps[position + 1 :]:
            if step.tops[0] in later.bottoms:
                if later.type == "Scale" and later.layer.blobs:
                    found[step.name] = later
                break
    return found


def modules_of(keys: Iterable[str]) -> tuple[str, ...]:
    """The modules that a state dict's keys name, in their order."""
    return tuple(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def _in_order(
    modules: Sequence[str], steps: Sequence[Step], scales: Mapping[str, Step]
) -> dict[str, Step]:
    """The layers by the names of the modules that stand at their places."""
    if not modules:
        return {}
    absorbed = {scale.name for scale in scales.values()}
    layers = [step for step in steps if step.layer.blobs and step.name not in absorbed]
    if len(modules) != len(layers):
        raise WeightsError(
            f"the names are of {len(modules)} modules with parameters ({modules[0]} ... "
            f"{modules[-1]}), the net has {len(layers)} layers with parameters: in order they "
            "cannot be matched"
        )
    return dict(zip(modules, layers, strict=True))


def _slot(name: str, layers: Mapping[str, Step], scales: Mapping[str, Step]) -> Slot | None:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        step = layers.get(".".join(parts[:cut]))
        if step is None:
            continue
        if cut == len(parts):  # the key is a layer's name: its only blob
            return Slot(step, 0) if len(step.layer.blobs) == 1 else None
        attribute = "_".join(parts[cut:])
        attribute = _STATISTICS.get(attribute, attribute)
        for candidate in (step, scales.get(step.name)):
            if candidate is None:
                continue
            for index, blob in enumerate(candidate.layer.blobs):
                if blob.name == attribute:
                    return Slot(candidate, index)
    return None


def to_weights(
    tensors: StateDict, steps: Sequence[Step], source: str, rules: NameRules | None = None
) -> Weights:
    """The state dict as blobs of the layers ``steps``; modules without a layer stay in the list."""
    matching = match(tensors, steps, rules)
    found: dict[str, dict[int, np.ndarray]] = {}
    for key, slot in matching.slots.items():
        found.setdefault(slot.step.name, {})[slot.index] = _fitted(tensors[key], slot.shape)
    layers = []
    for step in steps:
        blobs = found.get(step.name)
        if blobs is None:
            continue
        if isinstance(step.layer, BatchNorm) and blobs.keys() == {0, 1}:
            blobs = _summed(blobs[0], blobs[1], step.layer.moving_average_fraction)
        arrays: list[BlobArray | None] = [BlobArray(blobs[index]) for index in sorted(blobs)]
        layers.append(LayerBlobs(step.name, step.type, arrays))
    strangers: dict[str, list[BlobArray | None]] = {}
    for key in matching.unmatched:
        module = key.rpartition(".")[0] or key
        strangers.setdefault(module, []).append(BlobArray(_numpy(tensors[key])))
    layers += [LayerBlobs(name, "", blobs) for name, blobs in strangers.items()]
    return Weights(source, layers)


def _summed(mean: np.ndarray, variance: np.ndarray, fraction: float) -> dict[int, np.ndarray]:
    """Torch's moving averages as Caffe's moving sums with the weight to which they tend.

    With that weight the next batch counts 1 - ``fraction``, as it does in torch.
    """
    weight = np.float32(1 / (1 - fraction) if fraction < 1 else 1)
    return {0: mean * weight, 1: variance * weight, 2: np.full(1, weight, np.float32)}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _fitted(tensor: Tensor, shape: Shape) -> np.ndarray:
    """The tensor as an array in ``shape``, if that differs only in axes of size 1, or if a
    convolution over all of its input is wanted as a product."""
    values = _numpy(tensor)
    long = [size for size in values.shape if size != 1]
    if values.size == math.prod(shape) and long == [size for size in shape if size != 1]:
        return values.reshape(shape)
    if values.ndim == 4 and shape == (len(values), values[0].size):
        return values.reshape(shape)
    return values


def own_names(layers: Iterable[LayerBlobs], steps: Sequence[Step]) -> StateDict:
    """Blobs by ``layer.blob``, as :class:`ParamRef` names them (``conv1.weight``)."""
    by_name = {step.name: step for step in steps}
    return {
        f"{layer.name}.{by_name[layer.name].layer.blobs[index].name}": torch.from_numpy(blob.data)
        for layer in layers
        if layer.name in by_name
        for index, blob in enumerate(layer.blobs)
        if blob is not None
    }


def to_torch_names(
    layers: Iterable[LayerBlobs],
    steps: Sequence[Step],
    wanted: Mapping[str, Tensor],
    rules: NameRules | None = None,
) -> StateDict:
    """A state dict with the keys and shapes of ``wanted`` (meta tensors will do).

    WeightsError names keys for which the net has no blob, or one of another shape.
    """
    blobs = {layer.name: layer.blobs for layer in layers}
    matching = match(wanted, steps, rules)
    if matching.unmatched:
        raise WeightsError(f"the net has no blob for {', '.join(matching.unmatched[:6])}")
    result: StateDict = {}
    for key, like in wanted.items():
        if key.endswith(_COUNTER):
            result[key] = torch.zeros((), dtype=torch.int64)
            continue
        slot = matching.slots[key]
        stored = blobs[slot.step.name]
        values = stored[slot.index]
        assert values is not None
        array = values.data
        if slot.step.type == "BatchNorm" and (factor := stored[2]) is not None:
            scale = float(factor.data[0])
            array = array / scale if scale else np.zeros_like(array)
        if array.size != like.numel():
            raise WeightsError(
                f"{key}: must have shape {list(like.shape)}, but {slot.step.name}.{slot.blob} has "
                f"{list(array.shape)}"
            )
        result[key] = torch.from_numpy(np.ascontiguousarray(array, np.float32)).reshape(like.shape)
    return result
