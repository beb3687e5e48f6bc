"""Building each layer of a connected net for the shapes of its bottoms, without allocating."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ..layers import own
from ..layers.base import Arity, Context, Layer
from ..layers.registry import find
from ..layers.source import DataSource
from ..proto import caffe_pb2
from ..proto.errors import CortadoError, DataError, Fault, LayerError
from . import graph
from .steps import SourceStep, Step

#: Caffe counts the elements of a blob in 32 bits.
MAX_ELEMENTS = 2**31 - 1


class Builder:
    """Builds layers in order, carrying meta tensors from top to bottom."""

    def __init__(self, faults: list[Fault], caffe_quirks: bool = False) -> None:
        self.faults = faults
        self.caffe_quirks = caffe_quirks
        self.data_errors: list[CortadoError] = []
        #: What the layers at fault raised; its causes lead to what a Python layer raised.
        self.errors: list[LayerError] = []
        self.blobs: dict[str, Tensor] = {}
        self.order: list[Step | SourceStep] = []
        #: The wires as built, with automatic tops; one for each of ``order``.
        self.wires: list[graph.Wire] = []

    def add(self, wire: graph.Wire) -> None:
        """Build the wire's layer and note the shapes of its tops; faults are collected."""
        spec = wire.spec
        for top in wire.tops:  # a top that fails to appear must not keep an older blob's shape
            if top not in wire.bottoms:
                self.blobs.pop(top, None)
        try:
            cls = find(spec.message.type)
            own.check(cls, spec.message)
            wire = _with_automatic_tops(wire, cls)
            self._check_arity(cls, wire)
            if wire.in_place and not (issubclass(cls, Layer) and cls.allows_in_place):
                name = wire.tops[min(wire.in_place)]
                raise LayerError(
                    f"{cls.type} cannot work in place: its top {name!r} must have another name "
                    "than its bottom",
                    "top",
                )
            if wire.broken or any(blob not in self.blobs for blob in wire.bottoms):
                self._forget(wire)
                return  # the fault upstream is already reported
            bottoms = [self.blobs[blob] for blob in wire.bottoms]
            context = Context(
                tuple(tuple(blob.shape) for blob in bottoms),
                len(wire.tops),
                spec.message.phase,
                bool(wire.in_place),
                self.caffe_quirks,
            )
            if issubclass(cls, DataSource):
                self._add_source(wire, cls, context)
            else:
                self._add_layer(wire, cls, context, bottoms)
        except LayerError as error:
            self.errors.append(error)
            self.faults.append(spec.fault(str(error), error.field))
            self._forget(wire)
        except DataError as error:
            place = f"{spec.location()}: " if spec.location() else ""
            self.data_errors.append(type(error)(f"{place}layer {spec.name!r}: {error}"))
            self._forget(wire)

    def _forget(self, wire: graph.Wire) -> None:
        for top in wire.tops:
            self.blobs.pop(top, None)

    def _check_arity(self, cls: type[Layer] | type[DataSource], wire: graph.Wire) -> None:
        for kind, names, arity in (
            ("bottom", wire.bottoms, cls.bottoms),
            ("top", wire.tops, cls.tops),
        ):
            if len(names) not in arity:
                raise LayerError(_arity_message(cls.type, kind, len(names), arity), kind)

    def _add_source(self, wire: graph.Wire, cls: type[DataSource], context: Context) -> None:
        source = cls.from_message(wire.spec.message, context)
        self._set_tops(wire, [torch.empty(shape, device="meta") for shape in source.shapes])
        self.order.append(SourceStep(wire.spec, source, tuple(wire.tops)))
        self.wires.append(wire)

    def _add_layer(
        self, wire: graph.Wire, cls: type[Layer], context: Context, bottoms: list[Tensor]
    ) -> None:
        spec = wire.spec
        try:
            layer = cls.from_message(spec.message, context)
            layer.train(spec.message.phase == caffe_pb2.TRAIN)
            tops = layer.infer(bottoms)
        except LayerError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(str(list(shape)) for shape in context.shapes)
            first_line = str(error).partition("\n")[0]
            raise LayerError(f"cannot work on bottoms of shape {shapes}: {first_line}") from error
        self._set_tops(wire, tops)
        step = Step(
            spec,
            layer,
            tuple(wire.bottoms),
            tuple(wire.tops),
            context.shapes,
            tuple(tuple(top.shape) for top in tops),
            wire.in_place,
        )
        step.losses = self._loss_weights(step)
        self.order.append(step)
        self.wires.append(wire)
        layer.requires_grad_(False)  # share_parameters opens those that learn
        self._check_propagate_down(step)

    def _set_tops(self, wire: graph.Wire, tops: Iterable[Tensor]) -> None:
        for index, (name, blob) in enumerate(zip(wire.tops, tops, strict=True)):
            shape = list(blob.shape)
            if blob.numel() > MAX_ELEMENTS:
                raise LayerError(
                    f"top {name!r} would have shape {shape}: {blob.numel():,} elements, "
                    "more than the 2^31 - 1 a blob can hold",
                    f"top.{index}",
                )
            if blob.numel() == 0:
                raise LayerError(f"top {name!r} would be empty: shape {shape}", f"top.{index}")
            self.blobs[name] = blob

    def _loss_weights(self, step: Step) -> dict[int, float]:
        given = list(step.spec.message.loss_weight)
        if given and len(given) != len(step.tops):
            raise LayerError(
                f"loss_weight must be given once for each of the {len(step.tops)} tops "
                f"or not at all, got {len(given)}",
                "loss_weight",
            )
        weights = given or [step.layer.default_loss_weight] + [0.0] * (len(step.tops) - 1)
        return {index: weight for index, weight in enumerate(weights) if weight and step.tops}

    def _check_propagate_down(self, step: Step) -> None:
        given = step.spec.message.propagate_down
        if given and len(given) != len(step.bottoms):
            raise LayerError(
                f"propagate_down must be given once for each of the {len(step.bottoms)} bottoms "
                f"or not at all, got {len(given)}",
                "propagate_down",
            )


def _with_automatic_tops(wire: graph.Wire, cls: type[Layer] | type[DataSource]) -> graph.Wire:
    if issubclass(cls, Layer) and cls.automatic_tops:
        missing = cls.tops.low - len(wire.tops)
        return replace(wire, automatic=("(automatic)",) * max(0, missing))
    return wire


def _arity_message(layer_type: str, kind: str, count: int, arity: Arity) -> str:
    plural = "" if str(arity) == "1" else "s"
    return f"{layer_type} must have {arity} {kind}{plural}, got {count}"
