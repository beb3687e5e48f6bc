"""What cannot be expanded is one clear fault, with the place of its use and of its definition."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.errors import ConfigError
from cortado.proto.files import read_net
from cortado.proto.text import parse

BLOCK = """block { name: "fc" bottom: "x" top: "y" with { outputs: required bias: true scale: 1 }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
    inner_product_param { num_output: $outputs bias_term: $bias } } }
layer { name: "data" type: "Input" top: "data" }
"""
USE = 'layer { name: "a" type: "fc" with { %s } }'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BLOCK + USE % "output: 3", "5:37: block 'fc' has no parameter 'output'; did you mean"),
        (BLOCK + USE % "scale: 2", "5:1: block 'fc' needs 'outputs'"),
        (BLOCK + USE % "outputs: 3 outputs: 4", "5:48: 'outputs' may be given only once"),
        (BLOCK + USE % 'outputs: 3 scale: "x"', "'scale' must be a number like its default 1"),
        (BLOCK + USE % "outputs: 3 scale: [1]", "'scale' must be a number like its default 1"),
        (BLOCK + USE % "outputs: $n", "5:46: there is no variable 'n'"),
        (BLOCK + USE % "outputs: ${1 / 0}", "5:46: division by zero: 1 / 0"),
        (BLOCK + USE % "outputs: ${1 % (2 - 2)}", "division by zero"),
        (BLOCK + USE % 'outputs: ${1 + data} bias: $x', "there is no variable 'data'"),
        (BLOCK + USE % "outputs: ${1 +}", r"expected a number or a variable in '1 \+', got its"),
        (BLOCK + USE % "outputs: ${1 2}", "expected an operator in '1 2', got '2'"),
        (BLOCK + USE % "outputs: ${99999999999 * 99999999999}", "more than 64 bits"),
        (BLOCK + USE % "outputs: ${1e308 * 10}", "no finite number"),
        (BLOCK + 'layer { type: "fcc" with { outputs: 3 } }', "no block 'fcc'.*did you mean 'fc'"),
        (BLOCK + 'layer { type: "fc" bottom: "a" bottom: "b" }', "takes 1 bottoms, got more"),
        (BLOCK + 'layer { type: "fc" param { } }', "a use of block 'fc' takes no 'param'"),
        (BLOCK + BLOCK, "block 'fc' is defined twice"),
        ('block { layer { name: "a" } }', "1:1: a block needs a name"),
        ('block { name: "a" top: "y" } layer { type: "a" }', "no layer in it makes it"),
        ('layer { bottom: $last } with { a: 1 }', r"\$last is the top of the layer before"),
        ('with { last: 3 }', "a variable cannot be called 'last'"),
        ('with { a: 3 } with { a: 4 }', "1:22: 'a' may be given only once"),
        ('with { a: required }', "variable 'a' must be set: --set a=..."),
        ('with { a: "x" b: ${a + 1} }', 'arithmetic needs numbers, got "x"'),
        ('with { a: "cost $ 3" }', r"a dollar sign by itself is written \$\$"),
        ('with { a: [1] b: "$a" }', r"'a' is \[1\], which has no place inside a string"),
        ('with { a: [a..3] }', "a range goes from"),
        ('with { a: [1..999999999] }', "a range of 999,999,999 values"),
        ('with { a: 1 } name: [[1]]', "'name' cannot hold a list of lists"),
        ('with { a: ${ } }', "expected a number or a variable in '', got its end"),
        ('with: 3', "'with' must be followed by values in braces"),
        ('repeat { layer { name: "a" } }', "'repeat' needs a list to walk"),
        ('repeat { with { a: [1, 2] b: [1] } }', "equally long: a has 2, b has 1"),
        ('repeat { with { a: [1] } block { name: "b" } }', "'block' stands at the top of a file"),
        ('num_output: $', r"expected a variable as \$name"),
        ('include: 3', "'include' needs a file's name in quotes, got 3"),
        ('include: "clasic.prototxt"', "no file 'clasic.prototxt' .* did you mean 'classic.proto"),
        ('include: "/etc/passwd"', "is outside the folders to include from"),
        ('name: 1..3', "expected the name of a field, got '..'"),
        ("name: $x", "there is no variable 'x'"),
    ],
)  # fmt: skip
def test_one_clear_fault(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, NetParameter)


def test_faults_name_the_use_with_its_values_and_the_definition() -> None:
    text = BLOCK + USE % 'outputs: "many"' + "\n" + USE % "outputs: -1"
    with pytest.raises(ConfigError) as caught:
        parse(text, NetParameter, "net.prototxt")
    first, second = caught.value.faults
    assert str(first.location) == "net.prototxt:3:39"
    assert 'got "many"' in first.message
    assert first.location is not None
    assert str(first.location.parent) == "net.prototxt:5:1"
    assert 'used at net.prototxt:5:1 (fc a outputs: "many")' in str(first)
    assert "got -1" in second.message


def test_a_fault_in_a_block_is_told_once() -> None:
    text = BLOCK.replace("bias_term", "biass_term") + (USE % "outputs: 3" + "\n") * 5
    with pytest.raises(ConfigError) as caught:
        parse(text, NetParameter)
    assert len(caught.value.faults) == 1


def test_recursion() -> None:
    text = """block { name: "a" layer { type: "b" } } block { name: "b" layer { type: "a" } }
    layer { type: "a" }"""
    with pytest.raises(ConfigError, match="block 'a' uses itself: a uses b uses a"):
        parse(text, NetParameter)


def test_include_circle_and_escape(tmp_path: Path) -> None:
    inner = tmp_path / "nets"
    inner.mkdir()
    (tmp_path / "secret.prototxt").write_text('name: "s"')
    (inner / "a.prototxt").write_text('include: "b.prototxt"')
    (inner / "b.prototxt").write_text('include: "a.prototxt"')
    with pytest.raises(ConfigError, match=r"a\.prototxt includes b\.prototxt includes a"):
        read_net(inner / "a.prototxt")
    (inner / "link.prototxt").symlink_to(tmp_path / "secret.prototxt")
    for name in ("../secret.prototxt", "link.prototxt"):
        (inner / "c.prototxt").write_text(f'include: "{name}"')
        with pytest.raises(ConfigError, match="outside the folders to include from"):
            read_net(inner / "c.prototxt")


LAYER = 'layer { name: "a" type: "ReLU" bottom: "a" top: "a" }'
TURNS = "repeat { with { i: [1..900] } repeat { with { j: [1..900] }"


def doubled(first: str, following: str) -> str:
    """Sixty variables, each made of two of the one before (``$a``)."""
    rest = " ".join(f"a{i + 1}{following.replace('$a', f'$a{i}')}" for i in range(60))
    return f"with {{ a0{first} {rest} }} "


def tower(height: int, uses: int) -> str:
    """Blocks that use the next one, ``uses`` times each."""
    inner = 'layer {{ type: "b{}" }} ' * uses
    blocks = (f'block {{ name: "b{i}" {inner.format(*[i + 1] * uses)} }}' for i in range(height))
    return f'{" ".join(blocks)} block {{ name: "b{height}" {LAYER} }} layer {{ type: "b0" }}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TURNS} {LAYER} }} }}", "more than"),
        (f"{TURNS} }} }}", "more than 20,000 uses"),
        (doubled(": [1, 2]", ": [$a, $a]") + "input_dim: $a60", "cannot hold a list of lists"),
        (doubled(" { dim: 1 }", " { x: $a x: $a }"), "more than 100,000 values"),
        (doubled(': "xxxxxxxx"', ': "$a$a"'), "a text of 8,192 characters"),
        (tower(25, uses=2), "more than 20,000 uses"),
        (tower(60, uses=1), "nested more than 30 deep"),
        ("with { a: " + "[" * 50_000, "nested more than 100 deep"),
        ("with { a: ${" + "(" * 450 + "} }", "nested more than 50 deep"),
        ("with { a: ${" + "-" * 100_000 + "1} }", "more than 500 characters"),
    ],
)  # fmt: skip
def test_runaway_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, NetParameter)
