"""Reading nets, solvers and other messages from files, and writing them.

A missing or unreadable file, a folder in its place, a text that is too large or no text at all:
each is one ConfigError that names the path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from .atomic import write_atomically
from .blocks import Settings
from .caffe_pb2 import NetParameter, SolverParameter
from .errors import ConfigError, Fault, Location, Source
from .positions import Document, Node
from .reading import AnyPath, read_bytes, read_text
from .syntax import read
from .text import parse, to_text
from .upgrade import NetUpgrade, Note, upgrade_net, upgrade_solver

M = TypeVar("M", bound=Message)
Variables = Mapping[str, object]

#: Protobuf cannot hold a message of 2 GiB or more.
MAX_MESSAGE_BYTES = 2**31 - 1


def read_net(path: AnyPath, variables: Variables | None = None) -> Document[NetParameter]:
    """The net of a prototxt file, in the current format, with its places in the file.

    ``variables`` are values for variables of the file (see docs/blocks.md); each must be one it
    has, or one that a file read before with the same Settings has.
    """
    settings = Settings(variables)
    try:
        document = read_prototxt(path, NetParameter, settings)
    except ConfigError as error:
        if error.partial is not None:
            error.partial = upgraded(error.partial)
        raise
    settings.check(os.fspath(path))
    return upgraded(document)


def read_prototxt(
    path: AnyPath, message_class: type[M], variables: Variables | None = None
) -> Document[M]:
    """The message of a prototxt file as it is written, with blocks and variables expanded."""
    name = os.fspath(path)
    folder = Path(name).parent
    return parse(read_text(path), message_class, name, folder=folder, variables=variables)


def read_solver(path: AnyPath, variables: Variables | None = None) -> Document[SolverParameter]:
    """The solver of a prototxt file, in the current format.

    ``variables`` are values for its variables, or for those of the nets that it names: they stay
    with the document.

    A missing ``snapshot_prefix`` becomes the file's path without its ending; one that is a folder
    gets the file's name inside it (both as in Caffe).
    """
    settings = Settings(variables)
    document = read_prototxt(path, SolverParameter, settings)
    try:
        solver = upgrade_solver(document.message)
    except ValueError as error:
        assert document.root is not None
        place = document.root.find("solver_type").location
        raise ConfigError(Fault(str(error), place)) from None
    prefix = Path(path).with_suffix("")
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(prefix)
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, prefix.name)
    return Document(solver, document.root, settings)


def is_solver(path: AnyPath) -> bool:
    """Whether a prototxt file is a solver rather than a net, told by the names of its fields."""
    tree, _ = read(Source(os.fspath(path), read_text(path)))
    used = {field.name for field in tree.fields}
    of_solver = used.intersection(field.name for field in SolverParameter.DESCRIPTOR.fields)
    of_net = used.intersection(field.name for field in NetParameter.DESCRIPTOR.fields)
    return len(of_solver) > len(of_net)


def read_net_or_solver(
    path: AnyPath, variables: Variables | None = None
) -> Document[NetParameter] | Document[SolverParameter]:
    """A net or solver from a prototxt file, as it is written, with the short form expanded."""
    settings = Settings(variables)
    document: Document[NetParameter] | Document[SolverParameter]
    if is_solver(path):
        document = read_prototxt(path, SolverParameter, settings)
    else:
        document = read_prototxt(path, NetParameter, settings)
    settings.check(os.fspath(path))
    return document


def upgraded(document: Document[NetParameter]) -> Document[NetParameter]:
    """``document`` in the current format; each layer keeps the place of what it was made from.

    ConfigError lists what cannot be brought to the current format.
    """
    upgrade = upgrade_net(document.message)
    root = document.root
    if upgrade.refusals:
        raise ConfigError(Fault(note.message, _place(root, note)) for note in upgrade.refusals)
    if root is not None and upgrade.steps:
        root = _moved(root, upgrade)
    return Document(upgrade.net, root)


def _place(root: Node | None, note: Note) -> Location | None:
    if root is None:
        return None
    if note.origin is None:
        return root.location
    name, index = note.origin
    return root.find(f"{name}.{index}").location


def _moved(root: Node, upgrade: NetUpgrade) -> Node:
    """The tree of places for the upgraded net."""
    fields = dict(root.fields or {})
    layers: list[Node] = []
    for name, index in upgrade.origins:
        found = root.children(name)
        layers.append(_flattened(found[index]) if index < len(found) else root)
    for name in ("layers", "input", "input_dim", "input_shape"):
        fields.pop(name, None)
    fields["layer"] = layers
    return Node(root.source, root.offset, fields, root.parent)


def _flattened(layer: Node) -> Node:
    """A V0 layer's node with the fields of the layer nested in it as its own."""
    nested = layer.children("layer")
    if not nested:
        return layer
    fields = {**(nested[0].fields or {}), **(layer.fields or {})}
    del fields["layer"]
    return Node(layer.source, layer.offset, fields, layer.parent)


def read_message(path: AnyPath, message_class: type[M]) -> M:
    """A message from a binary file (a Datum, a mean image, a whole net)."""
    message = message_class()
    try:
        message.ParseFromString(read_bytes(path, MAX_MESSAGE_BYTES))
    except DecodeError:
        name = message_class.DESCRIPTOR.name
        raise ConfigError(f"{path}: is no {name} in binary form (or is cut off)") from None
    return message


def write_message(path: AnyPath, message: Message) -> None:
    """Write ``message`` in binary form; the file appears complete or not at all."""
    with write_atomically(path) as file:
        file.write(message.SerializeToString(deterministic=True))


def write_text(path: AnyPath, message: Message) -> None:
    """Write ``message`` as prototxt; the file appears complete or not at all."""
    with write_atomically(path) as file:
        file.write(to_text(message).encode("utf-8"))
