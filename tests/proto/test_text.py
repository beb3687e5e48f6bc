"""The prototxt reader against protobuf's own, and what it says about faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cortado.proto import caffe_pb2, files
from cortado.proto.errors import ConfigError
from cortado.proto.text import parse, to_text

GOLDENS = Path(__file__).parent.parent / "goldens"
Net = caffe_pb2.NetParameter

FLOATS = st.floats(width=32, allow_nan=False)
SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
STYLES: list[dict[str, bool]] = [
    {},
    {"as_one_line": True},
    {"pointy_brackets": True},
    {"use_short_repeated_primitives": True},
    {"as_utf8": True},
]


def value_of(field: FieldDescriptor) -> st.SearchStrategy[object]:
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=12)
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(st.characters(codec="utf-8"), max_size=12)
    return SCALARS[field.cpp_type]


def fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    fields = list(message.DESCRIPTOR.fields)
    chosen = draw(st.lists(st.sampled_from(fields), max_size=5, unique_by=lambda f: f.number))
    required = [field for field in fields if field.is_required]
    for field in {f.number: f for f in chosen + required}.values():
        count = draw(st.integers(1, 3)) if field.is_repeated else 1
        for _ in range(count):
            if field.message_type is None:
                value = draw(value_of(field))
                if field.is_repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
            elif depth:
                inner = getattr(message, field.name)
                inner = inner.add() if field.is_repeated else inner
                inner.SetInParent()
                fill(draw, inner, depth - 1)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from([Net, caffe_pb2.SolverParameter, caffe_pb2.LayerParameter]))
    message = kind()
    fill(draw, message, 3)
    return message


@settings(max_examples=150, deadline=None)
@given(messages(), st.sampled_from(STYLES))
@example(caffe_pb2.LayerParameter(own_param=[caffe_pb2.OwnParameter()]), {})
@example(caffe_pb2.LayerParameter(own_param=[caffe_pb2.OwnParameter(name="relu_param")]), {})
def test_reads_whatever_protobuf_prints(message: Message, style: dict[str, bool]) -> None:
    text = text_format.MessageToString(message, **style)
    assert parse(text, type(message)).message == message
    assert parse(to_text(message), type(message)).message == message


@pytest.mark.parametrize("path", sorted(GOLDENS.rglob("*.prototxt")), ids=lambda p: p.stem)
def test_agrees_with_protobuf_on_every_file_here(path: Path) -> None:
    text = path.read_text()
    kind = caffe_pb2.SolverParameter if "base_lr" in text else Net
    assert parse(text, kind).message == text_format.Parse(text, kind())


@pytest.mark.parametrize(
    "text",
    [
        "# nothing\n",
        "layer { name: 'a' bottom: \"b\\x41\\102\\n\\u00e9\\U0001F600\" 'c' # end\n }",
        "layer < name: 'a'; top: ['x', 'y'], top: 'z' loss_weight: [] >",
        "layer: [{ name: 'a' }, { name: 'b' }]",
        "layer { phase: 1 propagate_down: [true, t, True, 1, 0, false, f, False] }",
        "input_dim: 0x1F input_dim: 017 input_dim: -0x1 input_dim: 0",
        "layer { loss_weight: [1, -1.5, 2.f, 1e3, .5, 5., inf, -Infinity, 1e-3f, 3F] }",
        "layer { param { } param: <> }",
        "layer\r\n{\r\n\tname:'a'\r\n}\r\n",
        "input_shape { dim: 1 dim: [2, 3] }",
    ],
)
def test_accepts_all_forms_of_the_format(text: str) -> None:
    assert parse(text, Net).message == text_format.Parse(text, Net())


def test_nan_comes_through() -> None:
    weight = parse("layer { loss_weight: [nan, -nan] }", Net).message.layer[0].loss_weight
    assert all(value != value for value in weight)


def test_remembers_where_everything_stands() -> None:
    text = 'name: "n"\nlayer {\n  name: "a" top: ["x",\n "y"]\n  pooling_param { pad: 1 }\n}'
    document = parse(text, Net, "net.prototxt")
    (layer,) = document.nodes("layer")
    assert layer is not None
    places = {
        path: str(layer.find(path).location) for path in ("name", "top.1", "pooling_param.pad")
    }
    assert places == {
        "name": "net.prototxt:3:9",
        "top.1": "net.prototxt:4:2",
        "pooling_param.pad": "net.prototxt:5:24",
    }
    assert str(layer.location) == "net.prototxt:2:1"
    # A field that is not in the text has the place of what it would be in.
    assert layer.find("pooling_param.kernel_size").line == 5


def faults(text: str, kind: type[Message] = Net) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, kind, "f")
    return [f"{f.location.line}:{f.location.column} {f.message}" for f in caught.value.faults
            if f.location]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nam: 'x'", ["1:1 NetParameter has no field 'nam'; did you mean 'name'?"]),
        (
            "layer { pooling_param { pool: MXA } }",
            ["1:31 'pool' must be MAX, AVE or STOCHASTIC (without quotes), got MXA; "
             "did you mean 'MAX'?"],
        ),
        ("name: 'x'\nname: 'y'", ["2:1 'name' may be given only once"]),
        ("state {}\nstate {}", ["2:1 'state' may be given only once"]),
        ("name: ['x']", ["1:1 'name' takes one value, not a list"]),
        ("input_dim: 2147483648",
         ["1:12 'input_dim' must be a whole number from -2147483648 to 2147483647, "
          "got 2147483648"]),
        ("input_dim: 1.5", ["1:12 'input_dim' must be a whole number from -2147483648 to "
                            "2147483647, got 1.5"]),
        ("layer { clip_param { min: 0 } }", ["1:9 ClipParameter needs the field 'max'"]),
        ("force_backward: 2", ["1:17 'force_backward' must be true or false, got 2"]),
        ("name: x", ["1:7 'name' must be a string in quotes (of valid UTF-8), got x"]),
        ("state: 3", ["1:8 'state' must be a block in braces, got 3"]),
        ("name { }", ["1:1 'name' must be a string in quotes (of valid UTF-8), got a block"]),
        ("name 'x'", ["1:6 expected ':' or '{' after 'name', got \"'x'\""]),
        ("name = 'x'", ["1:6 expected ':' after 'name', got '='"]),
        ("name:\ninput: 'x'", ["1:1 'name' has no value"]),
        ("name\ninput: 'x'", ["1:5 'name' has no value: expected ':' or '{'"]),
        ("name: 'x\ninput: 'y'", ["1:7 this string is never closed: strings end on their line"]),
        ("name: 'x' }\ninput: 'y'", ["1:11 '}' closes nothing"]),
        ("layer { name: 'x' >", ["1:19 must be '}', got '>'"]),
        ("layer {\n name: 'x'\n", ["1:7 this block is never closed"]),
        ("layer {\n param {\n}\nlayer { nme: 'y' }",
         ["1:7 this block is never closed",
          "4:9 LayerParameter has no field 'nme'; did you mean 'name'?"]),
        ("name: '\\q'", ["1:7 strings have no escape '\\\\q'; a backslash itself is written \\\\"]),
        ("input: ['a' 'b'\ninput: 'c'", ["2:1 expected ',' or ']', got 'input'"]),
        ("3: 4\nnam: 'x'", ["1:1 expected the name of a field, got '3'",
                            "2:1 NetParameter has no field 'nam'; did you mean 'name'?"]),
        ("name: 'a\udcff'",
         ["1:7 'name' must be a string in quotes (of valid UTF-8), got \"a?\""]),
    ],
)  # fmt: skip
def test_names_place_and_reason(text: str, wanted: list[str]) -> None:
    assert faults(text) == wanted


def test_reports_all_faults_together_with_line_and_caret() -> None:
    text = "layer {\n\tnam: 'a'\n\ttype: 3\n}\nlayr { }\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, Net, "net.prototxt")
    assert str(caught.value) == (
        "net.prototxt:2:2: LayerParameter has no field 'nam'; did you mean 'name'?\n"
        "    \tnam: 'a'\n    \t^\n"
        "net.prototxt:3:8: 'type' must be a string in quotes (of valid UTF-8), got 3\n"
        "    \ttype: 3\n    \t      ^\n"
        "net.prototxt:5:1: NetParameter has no field 'layr'; did you mean 'layer'?\n"
        "    layr { }\n    ^"
    )


def test_long_lines_are_shown_around_the_fault() -> None:
    text = f"# {'x' * 5}\n{'name: 1 ' * 200}"
    with pytest.raises(ConfigError) as caught:
        parse(text, Net)
    assert max(map(len, str(caught.value).splitlines())) < 200


@pytest.mark.parametrize(
    "text",
    ["layer{" * 100_000, "a:" * 500_000, "\x01" * 10_000, "'" * 100_000, "}" * 100_000,
     "layer: [" * 10_000, "-" * 100_000, "name: '" + "\\" * 99_999,
     "layer{}" * 300_000, "input_dim: [" + "1," * 300_000],
)  # fmt: skip
def test_hostile_texts_are_refused_without_end_or_recursion(text: str) -> None:
    # A quadratic scan would run into the test's time limit.
    with pytest.raises(ConfigError) as caught:
        parse(text, Net)
    assert len(caught.value.faults) <= 50


def test_depth_limit_is_that_of_protobuf() -> None:
    deep = "layer { " * 101
    assert "nested more than 100 deep" in faults(deep)[0]


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.prototxt"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ConfigError, match=r"huge\.prototxt: is 1,073,741,824 bytes; at most"):
        files.read_net(path)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [(b"\xff\xfen\0", "UTF-16"), (b"name: 'x'\0", "binary file")],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, wanted: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=wanted):
        files.read_net(path)


def test_marks_and_foreign_bytes_in_comments_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xef\xbb\xbf# caf\xe9\r\nname: 'x'\r\n")
    assert files.read_net(path).message.name == "x"


@pytest.mark.parametrize("name", ["missing.prototxt", "."])
def test_missing_file_and_folder_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"no such file|is a directory") as caught:
        files.read_net(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
