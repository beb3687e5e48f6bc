"""Event files for TensorBoard, read back as TensorBoard reads them."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cortado.proto.errors import ConfigError
from support.runs import everything, identical, small_solver

NET = """
name: "seen"
layer { name: "in" type: "DummyData" top: "data" top: "label" top: "sound"
  dummy_data_param {
    shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } shape { dim: 4 dim: 100 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 }
    data_filler { type: "uniform" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "hush" type: "Silence" bottom: "sound" }
"""
FIELDS = "display: 2 test_iter: 2 test_interval: 4 snapshot_after_train: false"


def board(folder, more: str = "") -> str:
    intervals = "histogram_interval: 4 image_interval: 4"
    return f'{FIELDS} tensorboard {{ folder: "{folder}/board" {intervals} {more} }}'


@pytest.fixture
def read(tmp_path):
    def load() -> EventAccumulator:
        found = EventAccumulator(
            str(tmp_path / "board"), size_guidance={"images": 0, "scalars": 0, "histograms": 0}
        )
        return found.Reload()

    return load


def test_everything_that_a_run_shows(tmp_path, read):
    lines = []
    with small_solver(tmp_path, board(tmp_path, 'audio: "sound"'), NET) as solver:
        solver.listeners.append(lines.append)
        solver.solve()
    found = read()
    tags = found.Tags()
    steps = {tag: [event.step for event in found.Scalars(tag)] for tag in tags["scalars"]}
    assert steps["train/learning_rate"] == [0, 2, 4, 6]
    assert steps["train/loss"] == [0, 2, 4, 6]
    assert steps["test0/loss"] == [0, 4, 8]
    shown = {event.iteration: event.loss for event in lines if type(event).__name__ == "Displayed"}
    written = {event.step: event.value for event in found.Scalars("train/smoothed_loss")}
    assert {step: written[step] for step in shown} == pytest.approx(shown)
    assert set(tags["histograms"]) == {
        f"{kind}/{name}"
        for kind in ("weights", "gradients")
        for name in ("conv.weight", "conv.bias", "ip.weight", "ip.bias")
    }
    assert [event.step for event in found.Histograms("weights/ip.bias")] == [0, 4]
    assert set(tags["images"]) == {"input/data", "filters/conv", "activations/conv"}
    picture = found.Images("activations/conv")[0]
    assert (picture.width, picture.height) == (3 * 7 + 1, 2 * 7 + 1)  # five maps of 6x6 in a grid
    assert tags["audio"] == ["audio/sound"]
    assert found.Audio("audio/sound")[0].sample_rate == 16000
    texts = {tag: found.Tensors(tag)[0].tensor_proto.string_val[0] for tag in tags["tensors"]}
    assert b"InnerProduct" in texts["net/text_summary"]
    assert b"base_lr" in texts["solver/text_summary"]


def test_the_graph_has_a_node_for_every_layer(tmp_path, read):
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    with small_solver(tmp_path, board(tmp_path), NET) as solver:
        solver.step(1)
    graph = read().Graph()
    assert isinstance(graph, GraphDef)
    nodes = {node.name: node for node in graph.node}
    assert list(nodes) == ["in", "conv", "drop", "ip", "loss", "hush"]
    assert nodes["ip"].op == "InnerProduct"
    assert list(nodes["ip"].input) == ["drop"]
    assert list(nodes["loss"].input) == ["ip", "in:1"]
    sizes = [dim.size for dim in nodes["conv"].attr["_output_shapes"].list.shape[0].dim]
    assert sizes == [4, 5, 6, 6]


def test_watching_does_not_change_the_run(tmp_path):
    with small_solver(tmp_path, FIELDS, NET) as plain:
        plain.solve()
    with small_solver(tmp_path, board(tmp_path), NET) as watched:
        watched.solve()
    assert identical(everything(plain), everything(watched))


def test_an_audio_blob_that_is_not_there(tmp_path):
    with (
        small_solver(tmp_path, board(tmp_path, 'audio: "sond"'), NET) as solver,
        pytest.raises(ConfigError, match="no blob 'sond'; did you mean 'sound'"),
    ):
        solver.solve()
