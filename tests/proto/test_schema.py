"""Our schema against Caffe's field table, and the generated module against our schema."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

import cortado.proto
from cortado.proto import caffe_pb2

GOLDENS = Path(__file__).parent.parent / "goldens" / "proto"
PROTO = Path(cortado.proto.__file__).parent / "caffe.proto"
TYPE_NAMES = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in ("int64", "double", "float", "uint32", "string", "bytes", "int32", "bool")
}
OURS = 5000


def describe(file: FileDescriptor) -> Iterator[str]:
    """One line an enum and a field, as the golden table has them."""
    for enum in file.enum_types_by_name.values():
        yield describe_enum(enum)
    for message in file.message_types_by_name.values():
        yield from describe_message(message)


def describe_message(message: Descriptor) -> Iterator[str]:
    for enum in message.enum_types:
        yield describe_enum(enum)
    for field in message.fields:
        yield f"{local(message)}.{describe_field(field)}"


def describe_enum(enum: EnumDescriptor) -> str:
    return f"enum {local(enum)}: " + ", ".join(f"{v.name}={v.number}" for v in enum.values)


def describe_field(field: FieldDescriptor) -> str:
    label = "repeated" if field.is_repeated else "required" if field.is_required else "optional"
    refers = field.message_type or field.enum_type
    line = f"{field.name} = {field.number}: {label} "
    line += local(refers) if refers else TYPE_NAMES[field.type]
    if field.GetOptions().packed:
        line += " packed"
    if field.has_default_value:
        default = field.default_value
        if field.enum_type:
            default = field.enum_type.values_by_number[default].name
        line += f" default {default!r}"
    return line


def local(descriptor: Descriptor | EnumDescriptor) -> str:
    return descriptor.full_name.removeprefix("cortado.")


def owner(line: str) -> str:
    """The message a line belongs to; messages that Caffe does not have are ours altogether."""
    return line.removeprefix("enum ").partition(":")[0].partition(".")[0]


def number(line: str) -> int:
    found = re.search(r" = (\d+):", line)
    return int(found[1]) if found else 0


def test_every_field_type_number_default_and_enum_is_as_in_caffe() -> None:
    wanted = (GOLDENS / "caffe_schema.txt").read_text().splitlines()
    caffes = {owner(line) for line in wanted}
    found = {line for line in describe(caffe_pb2.DESCRIPTOR) if number(line) < OURS}
    assert set(wanted) - found == set()
    surplus = found - set(wanted)
    assert {line for line in surplus if owner(line) in caffes and number(line)} == set()


def test_generated_module_is_what_the_proto_file_says() -> None:
    assert sorted(describe(caffe_pb2.DESCRIPTOR)) == sorted(declarations(PROTO.read_text()))


def declarations(text: str) -> Iterator[str]:
    """A reading of caffe.proto that needs no protoc: the same lines as :func:`describe`."""
    text = re.sub(r"//[^\n]*", "", text)
    for name, values in re.findall(r"^enum (\w+) \{([^}]*)\}", text, re.MULTILINE):
        yield f"enum {name}: {declared_values(values)}"
    for match in re.finditer(r"^message (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        message, body = match.groups()
        nested = dict(re.findall(r"enum (\w+) \{([^}]*)\}", body))
        for name, values in nested.items():
            yield f"enum {message}.{name}: {declared_values(values)}"
        yield from declared_fields(message, body, nested)


def declared_values(body: str) -> str:
    return ", ".join("=".join(value) for value in re.findall(r"(\w+) = (\d+);", body))


def declared_fields(message: str, body: str, nested: dict[str, str]) -> Iterator[str]:
    pattern = r"(optional|required|repeated) ([\w.]+) (\w+) = (\d+)(?: \[(.*?)\])?;"
    for label, kind, name, number, options in re.findall(pattern, body):
        kind_name = f"{message}.{kind}" if kind in nested else kind
        line = f"{message}.{name} = {number}: {label} {kind_name}"
        if "packed = true" in options:
            line += " packed"
        default = re.search(r"default = (.+?)$", options)
        if default:
            line += f" default {python_value(default[1], kind)!r}"
        yield line


def python_value(text: str, kind: str) -> object:
    if kind == "float":
        return struct.unpack("f", struct.pack("f", float(text)))[0]
    if kind == "bool":
        return text == "true"
    if kind in ("int32", "int64", "uint32"):
        return int(text)
    return text.strip('"')
