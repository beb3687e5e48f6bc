"""The parameters a net learns: which layer owns each, who shares it, and their multipliers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..layers.base import Layer
from ..proto import caffe_pb2
from ..proto.errors import ConfigError, Fault
from .state import LayerSpec

if TYPE_CHECKING:
    from .steps import Step


@dataclass(slots=True)
class ParamRef:
    """One blob in Caffe's list of learnable parameters (a shared one appears once, with its owner).

    ``learnable`` is False for blobs that a layer keeps itself (BatchNorm's statistics): solvers do
    not update them, but their history has a place for them.
    """

    layer: str
    index: int
    module: Layer
    attribute: str
    learnable: bool
    lr_mult: float = 1.0
    decay_mult: float = 1.0

    @property
    def name(self) -> str:
        """The key in ``state_dict``, for example ``conv1.weight``."""
        return f"{self.layer}.{self.attribute}"

    @property
    def tensor(self) -> Tensor:
        tensor = getattr(self.module, self.attribute)
        assert isinstance(tensor, Tensor)
        return tensor


@dataclass(frozen=True, slots=True)
class Tie:
    """A blob that is another layer's parameter, maybe seen in another shape of the same count."""

    module: Layer
    attribute: str
    owner: Layer
    owner_attribute: str
    shape: torch.Size

    @property
    def reshapes(self) -> bool:
        return self._source.shape != self.shape

    @property
    def _source(self) -> Tensor:
        tensor = getattr(self.owner, self.owner_attribute)
        assert isinstance(tensor, Tensor)
        return tensor

    def apply(self) -> None:
        """Let the module use the owner's tensor.

        In another shape it is a view, which must be taken anew in every forward pass so that
        gradients reach the owner.
        """
        source = self._source
        if source.shape == self.shape:
            setattr(self.module, self.attribute, source)
        else:
            self.module._parameters.pop(self.attribute, None)
            self.module._buffers.pop(self.attribute, None)
            self.module.__dict__[self.attribute] = source.view(self.shape)


@dataclass(slots=True)
class _Shared:
    """A named parameter: its owner, and which multipliers have been stated for it so far."""

    ref: ParamRef
    spec: LayerSpec
    stated: set[str]


def share_parameters(
    steps: Sequence[Step], force_backward: bool, faults: list[Fault]
) -> tuple[list[ParamRef], list[Tie]]:
    """List the learnable blobs of ``steps``, and the ties between those that share a name.

    The first layer to use a name owns the parameter; with `share_mode: PERMISSIVE` a later one may
    see it in another shape of the same count. Gradients are asked for where `lr_mult` is not 0.
    """
    params: list[ParamRef] = []
    ties: list[Tie] = []
    named: dict[str, _Shared] = {}
    for step in steps:
        spec, layer = step.spec, step.layer
        declared = spec.message.param
        if len(declared) > len(layer.blobs):
            faults.append(
                spec.fault(
                    f"has {len(layer.blobs)} parameter blobs, but {len(declared)} param "
                    "specifications are given",
                    f"param.{len(layer.blobs)}",
                )
            )
        for index, blob in enumerate(layer.blobs):
            message = declared[index] if index < len(declared) else caffe_pb2.ParamSpec()
            ref = ParamRef(
                spec.name,
                index,
                layer,
                blob.name,
                blob.learnable,
                message.lr_mult if blob.learnable else 0.0,
                message.decay_mult if blob.learnable else 0.0,
            )
            if not blob.learnable and message.HasField("lr_mult") and message.lr_mult != 0:
                faults.append(
                    spec.fault(
                        f"{blob.name} is a statistic that the layer keeps itself: its lr_mult "
                        f"must be 0, got {message.lr_mult:g}",
                        f"param.{index}.lr_mult",
                    )
                )
            if blob.learnable:
                ref.tensor.requires_grad_(force_backward or message.lr_mult != 0)
            owner = named.get(message.name) if message.name else None
            if owner is None:
                params.append(ref)
                if message.name:
                    named[message.name] = _Shared(ref, spec, _stated(message))
            else:
                ties += _share(owner, ref, spec, message, faults)
    return params, ties


def adopt(steps: Iterable[Step], others: Iterable[Step]) -> None:
    """Let the layers of ``steps`` use the parameters of those of the same name in ``others``.

    ConfigError if one of them has another shape there.
    """
    theirs = {step.name: step.layer for step in others}
    for step in steps:
        layer = theirs.get(step.name)
        if layer is None:
            continue
        for index, blob in enumerate(step.layer.blobs):
            tensor = layer.blob(index) if index < len(layer.blobs) else None
            own = step.layer.blob(index)
            if tensor is None or tensor.shape != own.shape:
                found = "nothing" if tensor is None else list(tensor.shape)
                raise ConfigError(
                    f"layer {step.name!r}: {blob.name} has shape {list(own.shape)} here and "
                    f"{found} in the net it shares parameters with"
                )
            setattr(step.layer, blob.name, tensor)


def _stated(message: caffe_pb2.ParamSpec) -> set[str]:
    return {name for name in ("lr_mult", "decay_mult") if message.HasField(name)}


def _share(
    owner: _Shared,
    ref: ParamRef,
    spec: LayerSpec,
    message: caffe_pb2.ParamSpec,
    faults: list[Fault],
) -> list[Tie]:
    """The tie that makes ``ref`` use the owner's parameter, if shape and multipliers allow it."""
    shared, own = owner.ref.tensor, ref.tensor
    path = f"param.{ref.index}"
    permissive = message.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
    fits = shared.numel() == own.numel() if permissive else shared.shape == own.shape
    if not fits:
        faults.append(
            spec.fault(
                f"shares parameter {message.name!r} of layer {owner.spec.name!r}, whose shape is "
                f"{list(shared.shape)}; here it must be {list(own.shape)}",
                path,
                ("the owner is here", owner.spec),
            )
        )
        return []
    for name in _stated(message):
        value = getattr(message, name)
        if name not in owner.stated:
            owner.stated.add(name)
            setattr(owner.ref, name, value)
        elif getattr(owner.ref, name) != value:
            faults.append(
                spec.fault(
                    f"shares parameter {message.name!r} with layer {owner.spec.name!r}, where "
                    f"{name} is {getattr(owner.ref, name):g}; here it is {value:g}",
                    f"{path}.{name}",
                    ("the owner is here", owner.spec),
                )
            )
    if own.requires_grad:
        shared.requires_grad_(True)
    return [Tie(ref.module, ref.attribute, owner.ref.module, owner.ref.attribute, own.shape)]
