"""Every field of a layer's message has an effect or is refused by name; none is silently ignored.

Each field in turn is given other values in the declared cases of the layer type. What the layer
computes (tops, gradients, first values of its blobs) must change, or a fault be found; else the
field must be listed in docs/differences.md. So one that is added to the schema and forgotten is
noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from torch import Tensor

from cortado import layers
from cortado.layers.base import Layer
from cortado.layers.losses import LossLayer
from cortado.layers.registry import find, layer_types
from cortado.layers.source import DataSource
from cortado.proto import caffe_pb2
from cortado.proto.errors import LayerError
from support.goldens import as_tuple, enter_case_folder
from support.layer_case import LayerCase
from support.layer_cases import CASES

DIFFERENCES = Path(__file__).parents[2] / "docs" / "differences.md"
SOURCES = Path(layers.__file__).parent / "data"

NUMBERS: tuple[Any, ...] = (2, 0, 1, 3, 4, -1)
VALUES: dict[str, tuple[Any, ...]] = {
    "bool": (True, False),
    "float": (0.3, 0.0, 1.5, -2.0),
    "double": (0.3, 0.0, 1.5, -2.0),
    "string": ("other", "still other"),
}


#: Further declarations, in which fields count that change nothing in the others.
MORE_CASES = [
    LayerCase("CTCLoss", ((2, 2, 4), (2, 4)), labels=((1, 4),)),
    LayerCase("InfogainLoss", ((4, 3), (4,)), labels=((1, 3),)),
    LayerCase("TripletLoss", ((4, 3),) * 3, "triplet_loss_param { margin: 9 }"),
]


@pytest.fixture(autouse=True)
def _case_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_case_folder(tmp_path, monkeypatch)


def kind(field: FieldDescriptor) -> str:
    names = {
        FieldDescriptor.CPPTYPE_BOOL: "bool",
        FieldDescriptor.CPPTYPE_FLOAT: "float",
        FieldDescriptor.CPPTYPE_DOUBLE: "double",
        FieldDescriptor.CPPTYPE_STRING: "string",
    }
    return names.get(field.cpp_type, "number")


def variants(message: Message, field: FieldDescriptor) -> Iterator[None]:
    """Give ``field`` of ``message`` one value after another."""
    if field.message_type is not None:
        message.ClearField(field.name)
        given = getattr(message, field.name)
        given = given.add() if field.is_repeated else given
        if field.message_type.name == "FillerParameter":
            given.type, given.value = "constant", 0.7
        elif field.message_type.name == "BlobShape":
            given.dim.append(3)
        yield
        return
    values: tuple[Any, ...] = VALUES.get(kind(field), NUMBERS)
    if field.enum_type is not None:
        values = tuple(field.enum_type.values_by_number)
    for value in values:
        for count in (1, 2, 3) if field.is_repeated else (0,):
            message.ClearField(field.name)
            if count:
                getattr(message, field.name).extend([value] * count)
            else:
                try:
                    setattr(message, field.name, value)
                except ValueError:  # negative in an unsigned field
                    continue
            yield


def computed(case: LayerCase, message: caffe_pb2.LayerParameter) -> list[Tensor] | str:
    """All that two forwards and a backward pass give, or the fault that is found."""
    torch.manual_seed(3)
    try:
        layer = case.build(message)
        layer.materialize()
        blobs = [layer.blob(index).detach().clone() for index in range(len(layer.blobs))]
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.1)
        bottoms = case.inputs()
        for index in set(range(len(bottoms))) - dict(case.labels).keys():
            bottoms[index].requires_grad_()
        layer(*bottoms)
        tops = as_tuple(layer(*bottoms))
    except (LayerError, IndexError, RuntimeError) as error:
        return str(error)
    graded = [top.square().sum() for top in tops if top.requires_grad]
    wanted = [x for x in (*bottoms, *layer.parameters()) if x.requires_grad]
    grads = torch.autograd.grad(graded, wanted, allow_unused=True) if graded else ()
    written = torch.tensor([len(list(Path.cwd().iterdir()))])
    found = [*blobs, *tops, *(grad for grad in grads if grad is not None), *layer.buffers()]
    return [*found, written]


def same(first: list[Tensor] | str, second: list[Tensor] | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(first, second, strict=True)
    )


def has_effect(cases: list[LayerCase], path: str, field: FieldDescriptor) -> bool:
    for case in cases:
        plain = computed(case, case.message())
        message = case.message()
        for _ in variants(getattr(message, path), field):
            if not same(computed(case, message), plain):
                return True
    return False


def listed(name: str, field: str) -> bool:
    """Whether docs/differences.md says that the field has no effect in layers of this type."""
    section = DIFFERENCES.read_text(encoding="utf-8").partition("## Fields without effect")[2]
    rows = [row.split("|") for row in section.partition("\n## ")[0].splitlines() if "|" in row]
    return any(name in row[1].replace(",", " ").split() and f"`{field}`" in row[2] for row in rows)


def pairs() -> list[tuple[str, str, str]]:
    """Each layer type with each field of the messages that it reads."""
    found = []
    for name in layer_types():
        cls = find(name)
        if not issubclass(cls, Layer):
            continue
        paths = [cls.message_field] if cls.message_field else []
        if issubclass(cls, LossLayer):
            paths.append("loss_param")
        for path in paths:
            message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[path].message_type
            found += [(name, path, field.name) for field in message.fields]
    return found


@pytest.mark.parametrize(("name", "path", "field"), pairs())
def test_has_an_effect_or_is_refused(name: str, path: str, field: str) -> None:
    message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[path].message_type
    cases = [case for case in (*CASES, *MORE_CASES) if case.type == name]
    if has_effect(cases, path, message.fields_by_name[field]):
        return
    assert listed(name, field), "neither an effect, nor refused, nor listed in docs/differences.md"


def source_fields() -> list[tuple[str, str]]:
    found = []
    for name in layer_types():
        cls = find(name)
        path = getattr(cls, "message_field", "")
        if issubclass(cls, DataSource) and path:
            message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[path].message_type
            found += [(name, field.name) for field in message.fields]
    return found


@pytest.mark.parametrize(("name", "field"), source_fields())
def test_a_data_source_reads_or_refuses(name: str, field: str) -> None:
    """Sources need files, so it is only seen that their code speaks of the field."""
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    assert re.search(rf"\b{field}\b", code) or listed(name, field)
