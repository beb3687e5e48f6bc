"""Assignments such as ``base_lr=0.02`` or ``net.conv1.num_output=32`` to a solver and its nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ..layers.registry import find
from ..proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from ..proto.errors import ConfigError, Fault, LayerError, nearest
from ..proto.files import read_net
from ..proto.positions import Document, Node
from .requirements import SolverDocument

_INLINE = {"net": "net_param", "train_net": "train_net_param"}


def is_field(assignment: str) -> bool:
    """Whether an assignment is for a field (of the solver or its net) rather than a variable."""
    first = assignment.partition("=")[0].strip().partition(".")[0]
    return "." in assignment.partition("=")[0] or first in SolverParameter.DESCRIPTOR.fields_by_name


def apply(document: SolverDocument, assignments: Sequence[str]) -> SolverDocument:
    """The solver with each assignment made, in order; the document itself stays as it is.

    ``FIELD=VALUE`` sets a field of the solver; ``net.LAYER.FIELD=VALUE`` one of a layer of its net
    (all layers of that name, whatever their phase), where FIELD may leave out the layer's own
    message: ``num_output`` is ``inner_product_param.num_output`` in an InnerProduct layer. A
    repeated field takes values separated by commas. A net that is named by path becomes part of the
    solver. The assignments are recorded in the solver's ``override``. ConfigError with all faults.
    """
    solver = SolverParameter()
    solver.CopyFrom(document.message)
    result = Document(solver, document.root, document.variables)
    faults: list[Fault] = []
    for assignment in assignments:
        try:
            result = _assign(result, assignment)
        except ValueError as error:
            faults.append(Fault(f"--set {assignment}: {error}"))
    if faults:
        raise ConfigError(faults)
    result.message.override.extend(assignments)
    return result


def _assign(document: SolverDocument, assignment: str) -> SolverDocument:
    path, sign, value = assignment.partition("=")
    if not sign:
        raise ValueError("must have the form FIELD=VALUE")
    steps = path.strip().split(".")
    if steps[0] != "net" or len(steps) == 1:
        _set(document.message, steps, value)
        return document
    document, name = inlined(document)
    # A layer's name may contain dots: the longest one that there is.
    net: NetParameter = getattr(document.message, name)
    for length in range(len(steps) - 1, 1, -1):
        wanted = ".".join(steps[1:length])
        layers = [layer for layer in net.layer if layer.name == wanted]
        if layers:
            for layer in layers:
                _set(layer, _whole_path(layer, steps[length:]), value)
            return document
    names = [layer.name for layer in net.layer]
    raise ValueError(f"the net has no layer {steps[1]!r}{nearest(steps[1], names)}")


def inlined(document: SolverDocument) -> tuple[SolverDocument, str]:
    """The solver with its train net as a message, places kept, and the field that holds it."""
    solver = document.message
    for name, inline in _INLINE.items():
        if solver.HasField(inline):
            return document, inline
        if not solver.HasField(name):
            continue
        net = read_net(getattr(solver, name), document.variables)
        getattr(solver, inline).CopyFrom(net.message)
        solver.ClearField(name)
        root = document.root
        if root is not None and net.root is not None:
            fields = {**(root.fields or {}), inline: [net.root]}
            root = Node(root.source, root.offset, fields, root.parent)
        return Document(solver, root, document.variables), inline
    raise ValueError("the solver names no net")


def _whole_path(layer: LayerParameter, steps: list[str]) -> list[str]:
    """``steps`` with the field of the layer's own message in front, if they start inside it."""
    if steps[0] in LayerParameter.DESCRIPTOR.fields_by_name:
        return steps
    try:
        own = find(layer.type).message_field
    except LayerError:
        raise ValueError(f"unknown layer type {layer.type!r}") from None
    inner = LayerParameter.DESCRIPTOR.fields_by_name.get(own)
    message = inner.message_type if inner is not None else None
    inside = message.fields_by_name if message is not None else {}
    if steps[0] in inside:
        return [own, *steps]
    known = [*inside, *LayerParameter.DESCRIPTOR.fields_by_name]
    raise ValueError(f"{layer.type} layers have no field {steps[0]!r}{nearest(steps[0], known)}")


def _set(message: Message, steps: Sequence[str], value: str) -> None:
    """Set the field at ``steps`` from text; ValueError if there is no such field or value."""
    *parents, last = steps
    for step in parents:
        field = _field(message.DESCRIPTOR, step)
        if field.message_type is None:
            raise ValueError(f"{step} has no fields of its own")
        if field.is_repeated:
            raise ValueError(f"{step} is repeated: its elements cannot be set")
        message = getattr(message, step)
    field = _field(message.DESCRIPTOR, last)
    if field.message_type is not None:
        raise ValueError(f"{last} is a message: name a field of it")
    values = value.split(",") if field.is_repeated else [value]
    fresh = type(message)()
    for each in values:
        _parse(fresh, field, each.strip())
    message.ClearField(last)
    message.MergeFrom(fresh)


def _field(descriptor: Any, name: str) -> FieldDescriptor:
    field: FieldDescriptor | None = descriptor.fields_by_name.get(name)
    if field is None:
        known = nearest(name, descriptor.fields_by_name)
        raise ValueError(f"{descriptor.name} has no field {name!r}{known}")
    return field


def _parse(message: Any, field: FieldDescriptor, value: str) -> None:
    if field.type == FieldDescriptor.TYPE_STRING:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
        return
    scratch = type(message)()
    try:
        text_format.Merge(f"{field.name}: {value}", scratch)
    except text_format.ParseError:
        scratch.Clear()
    if [found.name for found, _ in scratch.ListFields()] != [field.name]:
        raise ValueError(f"{field.name} must be {_kind(field)}, got {value!r}")
    message.MergeFrom(scratch)


def _kind(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return f"one of {', '.join(field.enum_type.values_by_name)}"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true or false"
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return "a number"
    return "a whole number of its range"
