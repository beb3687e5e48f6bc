"""Every plain prototxt of the project means what it meant before there was a short form."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

import cortado
from cortado.proto import blocks
from cortado.proto.caffe_pb2 import NetParameter, SolverParameter
from cortado.proto.errors import ConfigError, Source
from cortado.proto.files import read_net_or_solver
from cortado.proto.syntax import read

ROOT = Path(cortado.__file__).parent
TEXTS = sorted(
    path
    for folder in ("examples", "model_zoo", "tests")
    for ending in ("*.prototxt", "*.pt", "*.pbtxt")
    for path in (ROOT / folder).rglob(ending)
)


def is_plain(path: Path) -> bool:
    tree, _ = read(Source(path.name, path.read_text("utf-8", "surrogateescape")))
    beyond = {*blocks.KEYWORDS, "import"}  # own layers have blocks that protobuf does not know
    return not tree.extended and not any(field.name in beyond for field in tree.fields)


PLAIN = [path for path in TEXTS if is_plain(path)]


def test_there_are_plain_texts() -> None:
    assert len(PLAIN) > 5


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_texts_mean_what_protobuf_says(path: Path) -> None:
    try:
        message = read_net_or_solver(path).message
    except ConfigError:
        with pytest.raises(text_format.ParseError):  # broken on purpose, by protobuf's word as well
            text_format.Parse(path.read_text(), NetParameter())
        with pytest.raises(text_format.ParseError):
            text_format.Parse(path.read_text(), SolverParameter())
        return
    assert message == text_format.Parse(path.read_text(), type(message)())


def test_expansion_leaves_plain_trees_as_they_are() -> None:
    for path in PLAIN:
        source = Source(path.name, path.read_text("utf-8", "surrogateescape"))
        tree, problems = read(source)
        if not problems and "$" not in source.text:
            expanded, _ = blocks.expand(tree, source)
            assert flat(expanded.fields) == flat(tree.fields), path


def flat(fields: list[blocks.expander.Field]) -> list[object]:
    """Fields as nested lists of names, values and offsets."""
    found: list[object] = []
    for field in fields:
        values = [
            flat(value.fields)
            if hasattr(value, "fields")
            else (value.kind, value.content, value.negative, value.offset)
            for value in field.values
        ]
        found.append((field.name, field.offset, field.listed, values))
    return found
