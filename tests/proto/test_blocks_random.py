"""Random programs of blocks expand to what a naive expansion of the same program gives.

A program is a tree of small records. It is written as text for the reader, and run here by an
interpreter that knows nothing of texts: it only prefixes, counts and substitutes.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.text import parse, to_text

VARIABLES = ("p", "q", "i", "j")
Env = dict[str, int]


@dataclass(frozen=True)
class Sum:
    """``left symbol right``; a number or a variable on either side, or a sum again."""

    symbol: str
    left: Sum | int | str
    right: Sum | int | str

    def text(self) -> str:
        return f"({_text(self.left)} {self.symbol} {_text(self.right)})"

    def value(self, env: Env) -> int:
        left, right = _value(self.left, env), _value(self.right, env)
        return {"+": left + right, "-": left - right, "*": left * right}[self.symbol]


def _text(part: Sum | int | str) -> str:
    return part.text() if isinstance(part, Sum) else str(part)


def _value(part: Sum | int | str, env: Env) -> int:
    if isinstance(part, Sum):
        return part.value(env)
    return env[part] if isinstance(part, str) else part


@dataclass(frozen=True)
class Layer:
    number: Sum
    last: bool  # reads the layer before, instead of the block's bottom
    in_place: bool
    variable: str


@dataclass(frozen=True)
class Use:
    block: int
    name: str
    from_last: bool
    arguments: dict[str, Sum]


@dataclass(frozen=True)
class Repeat:
    variable: str
    values: list[int]
    body: list[Layer | Use | Repeat]


Body = list[Layer | Use | Repeat]

names = st.sampled_from(VARIABLES)
leaves = st.one_of(st.integers(0, 9), names)
sums = st.builds(
    Sum,
    st.sampled_from("+-*"),
    st.one_of(leaves, st.builds(Sum, st.just("+"), leaves, leaves)),
    leaves,
)
layers = st.builds(Layer, sums, st.booleans(), st.booleans(), names)


def bodies(block: int, depth: int) -> st.SearchStrategy[Body]:
    """Bodies that use blocks after ``block`` only, so that no block uses itself."""
    kinds: list[st.SearchStrategy[Layer] | st.SearchStrategy[Use] | st.SearchStrategy[Repeat]]
    kinds = [layers]
    if block < 2:
        arguments = st.dictionaries(st.sampled_from(("p", "q")), sums)
        later, title = st.integers(block + 1, 2), st.sampled_from(("", "u", "v"))
        kinds.append(st.builds(Use, later, title, st.booleans(), arguments))
    if depth:
        turns = st.lists(st.integers(0, 5), max_size=3)
        kinds.append(
            st.builds(Repeat, st.sampled_from(("i", "j")), turns, bodies(block, depth - 1))
        )
    return st.lists(st.one_of(kinds), min_size=1, max_size=3)


def write(body: Body) -> str:
    return " ".join(_write(part) for part in body)


def _write(part: Layer | Use | Repeat) -> str:
    if isinstance(part, Repeat):
        values = ", ".join(map(str, part.values))
        return f"repeat {{ with {{ {part.variable}: [{values}] }} {write(part.body)} }}"
    if isinstance(part, Use):
        given = " ".join(f"{name}: ${{{value.text()}}}" for name, value in part.arguments.items())
        name = f'name: "{part.name}"' if part.name else ""
        bottom = "" if part.from_last else 'bottom: "x"'
        return f'layer {{ {name} type: "b{part.block}" {bottom} with {{ {given} }} }}'
    bottom = "$last" if part.last else '"x"'
    top = bottom if part.in_place else f'"t${part.variable}"'
    return (
        f'layer {{ name: "n${{{part.variable}}}_${part.variable}" type: "T" bottom: {bottom} '
        f"top: {top} loss_weight: ${{{part.number.text()}}} }}"
    )


class Naive:
    """Runs a program by substitution."""

    def __init__(self, blocks: list[Body]) -> None:
        self.blocks = blocks
        self.net = NetParameter()

    def run(self, body: Body, env: Env, prefix: str, x: str, last: str) -> str:
        """Append the layers of ``body``; the blob that was made last."""
        for part in body:
            if isinstance(part, Repeat):
                for value in part.values:
                    last = self.run(part.body, {**env, part.variable: value}, prefix, x, last)
            elif isinstance(part, Use):
                inner = {"p": 1, "q": 2, "i": 3, "j": 4}
                inner |= {name: value.value(env) for name, value in part.arguments.items()}
                source = last if part.from_last else x
                scope = f"{prefix}{part.name}/" if part.name else prefix
                last = self.run(self.blocks[part.block], inner, scope, source, source)
            else:
                bottom = last if part.last else x
                number = env[part.variable]
                last = bottom if part.in_place else f"{prefix}t{number}"
                self.net.layer.add(
                    name=f"{prefix}n{number}_{number}",
                    type="T",
                    bottom=[bottom],
                    top=[last],
                    loss_weight=[part.number.value(env)],
                )
        return last


@settings(max_examples=200, deadline=None)
@given(bodies(-1, 2), bodies(0, 1), bodies(1, 1), bodies(2, 1))
def test_expands_as_the_naive_expansion_does(
    main: Body, first: Body, second: Body, third: Body
) -> None:
    blocks = [first, second, third]
    text = "with { p: 1 q: 2 i: 3 j: 4 }\n" + "\n".join(
        f'block {{ name: "b{index}" bottom: "x" with {{ p: 1 q: 2 }} {write(body)} }}'
        for index, body in enumerate(blocks)
    )
    text += f'\nlayer {{ name: "x" type: "Input" top: "x" }} {write(main)}'
    naive = Naive(blocks)
    naive.net.layer.add(name="x", type="Input", top=["x"])
    naive.run(main, {"p": 1, "q": 2, "i": 3, "j": 4}, "", "x", "x")
    expanded = parse(text, NetParameter).message
    assert expanded == naive.net
    assert text_format.Parse(to_text(expanded), NetParameter()) == naive.net
