"""Layers chosen by state and connected by blob names, with every fault at its place."""

from __future__ import annotations

import pytest

from cortado.netdef import graph
from cortado.netdef.state import LayerSpec, State, effective_layers, parse_phase
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError, Fault
from cortado.proto.text import parse


def specs(text: str, state: State | None = None) -> tuple[list[LayerSpec], list[Fault]]:
    faults: list[Fault] = []
    document = parse(text, caffe_pb2.NetParameter, "net.prototxt")
    state = state or State(caffe_pb2.TRAIN)
    return list(effective_layers(document, state, faults)), faults


def connected(text: str) -> tuple[list[graph.Wire], list[Fault]]:
    layers, faults = specs(text)
    return graph.connect(layers, faults), faults


def layer(name: str, bottoms: str = "", tops: str = "", more: str = "") -> str:
    wires = [f'bottom: "{blob}"' for blob in bottoms.split()]
    wires += [f'top: "{blob}"' for blob in tops.split()]
    return f'layer {{ name: "{name}" type: "Any" {" ".join(wires)} {more} }}\n'


RULES = (
    layer("always")
    + layer("train", more="include { phase: TRAIN }")
    + layer("not_train", more="exclude { phase: TRAIN }")
    + layer("deep", more="include { min_level: 2 max_level: 3 }")
    + layer("staged", more='include { stage: "a" stage: "b" not_stage: "c" }')
    + layer("either", more='include { phase: TEST } include { stage: "a" }')
)


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (State(caffe_pb2.TRAIN), "always train"),
        (State(caffe_pb2.TEST), "always not_train either"),
        (State(caffe_pb2.TRAIN, 2), "always train deep"),
        (State(caffe_pb2.TRAIN, 4), "always train"),
        (State(caffe_pb2.TRAIN, 3, frozenset("ab")), "always train deep staged either"),
        (State(caffe_pb2.TEST, 0, frozenset("abc")), "always not_train either"),
    ],
)
def test_rules(state: State, kept: str) -> None:
    layers, faults = specs(RULES, state)
    assert [spec.name for spec in layers] == kept.split()
    assert not faults
    assert all(spec.message.phase == state.phase for spec in layers)


def test_include_and_exclude_together_is_a_fault_with_its_place() -> None:
    text = layer("ok") + layer("both", more="include { phase: TRAIN } exclude { phase: TEST }")
    layers, faults = specs(text)
    assert [spec.name for spec in layers] == ["ok"]
    assert "both" in faults[0].message
    assert str(faults[0].location).startswith("net.prototxt:2:")


def test_a_layer_keeps_the_phase_it_states() -> None:
    layers, _ = specs(layer("frozen", more="phase: TEST"))
    assert layers[0].message.phase == caffe_pb2.TEST


@pytest.mark.parametrize("phase", ["TRAIN", "train", 0])
def test_phase_by_name_or_number(phase: str | int) -> None:
    assert parse_phase(phase) == caffe_pb2.TRAIN


def test_unknown_phase_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'TEST'"):
        parse_phase("TESTS")


def test_outputs_are_unconsumed_blobs_in_alphabetical_order() -> None:
    wires, faults = connected(
        layer("data", "", "data label")
        + layer("ip", "data", "zz")
        + layer("relu", "zz", "zz")
        + layer("loss", "zz", "loss")
        + layer("acc", "zz", "acc")
    )
    assert not faults
    assert graph.outputs(wires) == ["acc", "label", "loss"]
    assert wires[2].in_place == {0}


def test_last_uses_name_each_blob_once_after_its_final_reader() -> None:
    wires, _ = connected(
        layer("data", "", "x") + layer("a", "x", "y") + layer("b", "x y", "z") + layer("c", "z")
    )
    assert [sorted(names) for names in graph.last_uses(wires, [])] == [[], [], ["x", "y"], ["z"]]
    assert graph.last_uses(wires, ["x"])[2] == ["y"]


def messages(text: str) -> list[str]:
    return [str(fault) for fault in connected(text)[1]]


def test_missing_bottom_names_the_nearest_blob_and_the_line() -> None:
    (fault,) = messages(layer("data", "", "data") + layer("conv", "dta", "conv"))
    assert fault.startswith("net.prototxt:2:")
    assert "did you mean 'data'" in fault
    assert fault.rstrip().endswith("^")


def test_blob_produced_later_points_at_its_layer() -> None:
    (fault,) = messages(layer("loss", "ip") + layer("ip", "", "ip"))
    assert "only later, by layer 'ip'" in fault
    assert "net.prototxt:2:" in fault


def test_cycle_is_written_out() -> None:
    (fault,) = messages(
        layer("a", "z", "x") + layer("b", "x", "y") + layer("side", "y") + layer("c", "y", "z")
    )
    assert "'a' -> 'b' -> 'c' -> 'a'" in fault
    assert "net.prototxt:4:" in fault


def test_in_place_layer_without_a_producer_is_no_cycle() -> None:
    (fault,) = messages(layer("relu", "x", "x"))
    assert "produced by no layer" in fault


def test_top_produced_twice_shows_both_layers() -> None:
    (fault,) = messages(layer("a", "", "x") + layer("b", "", "x"))
    assert fault.startswith("net.prototxt:2:")
    assert "first produced here" in fault
    assert "net.prototxt:1:" in fault


def test_empty_net() -> None:
    (fault,) = messages(layer("a", more="include { phase: TEST }"))
    assert "no layers" in fault


def test_independent_faults_are_all_reported() -> None:
    faults = messages(
        layer("a", "nothing", "x")
        + layer("b", "x", "y")
        + layer("c", "y", "z")
        + layer("d", "", "z")
    )
    assert len(faults) == 2
