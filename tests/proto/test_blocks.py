"""The short form: what blocks, repetition, variables and includes expand to."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortado.proto.blocks import parse_settings
from cortado.proto.blocks.expressions import compile_expression, compile_text
from cortado.proto.blocks.outline import Group, folded, outline
from cortado.proto.caffe_pb2 import NetParameter, SolverParameter
from cortado.proto.errors import ConfigError
from cortado.proto.files import read_net, read_solver
from cortado.proto.text import parse

DATA = 'layer { name: "data" type: "Input" top: "data" }'
RELU = 'layer { name: "%s" type: "ReLU" bottom: "%s" top: "%s" }'


def net(text: str, **variables: object) -> NetParameter:
    return parse(text, NetParameter, variables=variables).message


def wires(message: NetParameter) -> list[str]:
    """Each layer as ``name: bottoms -> tops``."""
    return [
        f"{layer.name}: {' '.join(layer.bottom)} -> {' '.join(layer.top)}"
        for layer in message.layer
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 // 2", 3),
        ("-7 // 2", -4),
        ("7 / 2", 3.5),
        ("7 % 4", 3),
        ("--2 - -3", 5),
        ("10 - 4 - 3", 3),
        ("width * 0.75 // 1", 48),
        ("1e-2 * 5", 0.05),
        (".5 + 1.", 1.5),
    ],
)
def test_arithmetic(text: str, value: float) -> None:
    found = compile_expression(text)({"width": 64})
    assert found == value
    assert type(found) is type(value)


def test_interpolation() -> None:
    fill = compile_text("res${stage}${unit}_$kind costs $$${2 * stage} at $rate")
    variables = {"stage": 2, "unit": "a", "kind": "branch", "rate": 0.5}
    assert fill(variables) == "res2a_branch costs $4 at 0.5"


def test_plain_text_keeps_its_dollars() -> None:
    assert net('name: "$HOME ${x} $$"').name == "$HOME ${x} $$"


def test_keywords_are_fields_where_a_message_has_them() -> None:
    message = net('layer { name: "a" include { phase: TEST } with: 3 }'.replace(" with: 3", ""))
    assert message.layer[0].include[0].phase == 1


def test_variables_of_every_kind() -> None:
    message = net(
        """with { wide: 64 half: ${wide // 2} rate: 0.5 method: AVE shape: [1, 3, ${wide}]
           filler { type: "gaussian" std: $rate } rules: [{ lr_mult: 1 }, { lr_mult: 2 }] no: none }
        layer { name: "w$wide" param: $rules input_param { shape { dim: $shape } }
          pooling_param { pool: $method stride: $no }
          convolution_param { num_output: $half weight_filler: $filler } }"""
    )
    wanted = """layer { name: "w64" param { lr_mult: 1 } param { lr_mult: 2 }
      input_param { shape { dim: 1 dim: 3 dim: 64 } } pooling_param { pool: AVE }
      convolution_param { num_output: 32 weight_filler { type: "gaussian" std: 0.5 } } }"""
    assert message == net(wanted)


def test_named_use_scopes_names_and_unnamed_does_not() -> None:
    block = """block { name: "pair" bottom: "x" top: "out"
      layer { name: "one" type: "ReLU" bottom: "x" top: "mid" }
      layer { name: "two" type: "ReLU" bottom: "mid" top: "out" } }"""
    named = net(f'{block} {DATA} layer {{ name: "a" type: "pair" }}')
    assert wires(named)[1:] == ["a/one: data -> a/mid", "a/two: a/mid -> a/out"]
    plain = net(f'{block} {DATA} layer {{ type: "pair" }}')
    assert wires(plain)[1:] == ["one: data -> mid", "two: mid -> out"]
    given = net(f'{block} {DATA} layer {{ name: "a" type: "pair" bottom: "q" top: "z" }}')
    assert wires(given)[1:] == ["a/one: q -> a/mid", "a/two: a/mid -> z"]


def test_blocks_inside_blocks() -> None:
    text = f"""
    block {{ name: "one" bottom: "x" with {{ id: required }}
      layer {{ name: "$id" type: "ReLU" bottom: "x" top: "$id" }} }}
    block {{ name: "two" bottom: "x" top: "r"
      layer {{ type: "one" with {{ id: "l" }} }}
      layer {{ name: "deep" type: "one" bottom: "x" with {{ id: "r" }} }}
      layer {{ name: "sum" type: "Eltwise" bottom: "l" bottom: $last top: "r" }} }}
    {DATA} layer {{ name: "a" type: "two" }} layer {{ name: "b" type: "two" }}"""
    assert wires(net(text))[1:] == [
        "a/l: data -> a/l",
        "a/deep/r: data -> a/deep/r",
        "a/sum: a/l a/deep/r -> a/r",
        "b/l: a/r -> b/l",
        "b/deep/r: a/r -> b/deep/r",
        "b/sum: b/l b/deep/r -> b/r",
    ]


def test_repetition_walks_lists_in_step_and_chains() -> None:
    text = f"""{DATA}
    repeat {{ with {{ stage: [2..4] letter: [a..c] twice: ${{2 * stage}} skip: $last }}
      layer {{ name: "r$stage$letter$twice" type: "ReLU" bottom: $last top: "r$stage" }}
      layer {{ name: "s$stage" type: "Eltwise" bottom: [$skip, $last] top: "s$stage" }} }}"""
    assert wires(net(text))[1:] == [
        "r2a4: data -> r2",
        "s2: data r2 -> s2",
        "r3b6: s2 -> r3",
        "s3: s2 r3 -> s3",
        "r4c8: s3 -> r4",
        "s4: s3 r4 -> s4",
    ]


def test_ranges() -> None:
    text = 'with { n: 0 } repeat { with { i: [%s] } name: "$i" }'
    solver = "with { n: %s } repeat { with { i: [1..$n] } stepvalue: ${i * 10} }"
    assert parse(solver % 3, SolverParameter).message.stepvalue == [10, 20, 30]
    assert not parse(solver % 0, SolverParameter).message.stepvalue
    with pytest.raises(ConfigError, match="upwards, got 3"):
        net(text % "3..1")
    layers = 'repeat { with { i: [a, b8..b11, "4_1".."4_2"] } layer { name: "r$i" } }'
    assert [each.name for each in net(layers).layer] == [
        "ra", "rb8", "rb9", "rb10", "rb11", "r4_1", "r4_2",
    ]  # fmt: skip


def test_rules_of_a_use_go_to_its_layers() -> None:
    text = """block { name: "b" layer { name: "x" } layer { name: "y" } }
    layer { type: "b" include { phase: TEST } }"""
    assert [layer.include[0].phase for layer in net(text).layer] == [1, 1]


def test_rules_inside_of_rules_are_met_together() -> None:
    text = """block { name: "inner" layer { name: "a" include { stage: "s" } }
      layer { name: "b" include { phase: TRAIN } } layer { name: "c" include { phase: 1 } }
      layer { name: "d" include { min_level: 3 max_level: 5 } include { not_stage: "t" } } }
    block { name: "outer" layer { type: "inner" include { phase: TEST min_level: 2 } } }
    layer { type: "outer" include { not_stage: "deploy" max_level: 4 } }"""
    around = 'phase: TEST min_level: 2 not_stage: "deploy" max_level: 4'
    wanted = f"""layer {{ name: "a" include {{ stage: "s" {around} }} }}
      layer {{ name: "c" include {{ {around} }} }}
      layer {{ name: "d" include {{ {around.replace("min_level: 2", "min_level: 3")} }}
        include {{ not_stage: "t" {around} }} }}"""
    assert net(text) == net(wanted)
    mixed = text.replace('include { stage: "s" }', 'exclude { stage: "s" }')
    with pytest.raises(ConfigError, match="'exclude' cannot be joined with 'include' around it"):
        net(mixed)


def test_a_top_that_is_a_bottom_hands_it_on() -> None:
    text = f"""block {{ name: "aside" bottom: "x" top: "x"
      layer {{ name: "loss" type: "EuclideanLoss" bottom: "x" top: "loss" }} }}
    {DATA} layer {{ name: "a" type: "aside" }}
    layer {{ name: "r" type: "ReLU" bottom: $last top: $last }}"""
    assert wires(net(text))[1:] == ["a/loss: data -> a/loss", "r: data -> data"]


def test_settings_override_the_files_variables(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('with { width: 64 who: "me" how: MAX } name: "$who$width"')
    assert read_net(path, parse_settings(["width=32", "who=you"])).message.name == "you32"
    assert read_net(path, {"width": 8}).message.name == "me8"
    with pytest.raises(ConfigError, match="has no variable 'wdith'; did you mean 'width'"):
        read_net(path, {"wdith": 8})
    with pytest.raises(ConfigError, match="'width' must be a number like its default 64, got wide"):
        read_net(path, parse_settings(["width=wide"]))


def test_a_solvers_settings_reach_its_nets(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('with { width: 64 } name: "$width"')
    path = tmp_path / "solver.prototxt"
    path.write_text("with { scale: 4 } base_lr: ${0.01 * scale} max_iter: ${100 // scale}")
    document = read_solver(path, parse_settings(["scale=2", "width=16"]))
    assert document.message.base_lr == pytest.approx(0.02)
    assert document.message.max_iter == 50
    assert read_net(tmp_path / "net.prototxt", document.variables).message.name == "16"
    other = tmp_path / "other.prototxt"
    other.write_text('name: "plain"')
    with pytest.raises(ConfigError, match="has no variable 'deep'"):
        read_net(other, read_solver(path, {"deep": 1}).variables)


def test_includes_are_found_beside_the_file_and_in_the_library(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.prototxt").write_text(f'include: "more.prototxt" {DATA}')
    (tmp_path / "parts" / "more.prototxt").write_text("with { wide: 3 }")
    path = tmp_path / "net.prototxt"
    path.write_text(
        'include: ["parts/mine.prototxt", "classic.prototxt", "parts/more.prototxt"]'
        'layer { type: "fc" with { id: 1 num_output: $wide } }'
    )
    assert [layer.name for layer in read_net(path).message.layer] == ["data", "fc1"]


def test_outline_shows_the_nesting() -> None:
    text = f"""block {{ name: "one" with {{ id: required }} layer {{ name: "$id" type: "ReLU" }} }}
    {DATA} repeat {{ with {{ i: [1, 2] }} layer {{ name: "u" type: "one" with {{ id: $i }} }} }}"""
    data, *turns = outline(parse(text.replace('"$id"', '"n$id"'), NetParameter))
    assert data.name == "data"
    assert [turn.title for turn in turns] == ["repeat i: 1", "repeat i: 2"]
    use = turns[1].children[0]
    assert isinstance(use, Group)
    assert use.title == "one u id: 2"
    assert [layer.name for layer in use.children] == ["u/n2"]


def test_blocks_can_be_folded_into_single_layers() -> None:
    text = f"""block {{ name: "one" bottom: "x"
      layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" }}
      layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }} }}
    block {{ name: "two" layer {{ name: "a" type: "one" }} layer {{ name: "b" type: "one" }} }}
    {DATA} repeat {{ with {{ i: [1, 2] }} layer {{ name: "u$i" type: "two" }} }}"""
    document = parse(text, NetParameter)
    closed = NetParameter(layer=folded(document, 0))
    assert wires(closed)[1:] == ["two u1: data -> u1/b/c", "two u2: u1/b/c -> u2/b/c"]
    assert [layer.name for layer in folded(document, 1)][1:3] == ["one a", "one b"]
    assert folded(document, 2) == list(document.message.layer)
