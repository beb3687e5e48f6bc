"""Old formats come out as Caffe brings them up to date, with the places they had."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortado.proto import caffe_pb2, files
from cortado.proto.errors import ConfigError
from cortado.proto.positions import Document
from cortado.proto.text import parse, to_text
from cortado.proto.upgrade import SOLVER_TYPES, V1_TYPES, upgrade_net, upgrade_solver
from cortado.proto.upgrade_v0 import FIELDS, TYPES

GOLDENS = Path(__file__).parent.parent / "goldens" / "proto"
Net = caffe_pb2.NetParameter


def upgraded(text: str) -> Document[caffe_pb2.NetParameter]:
    return files.upgraded(parse(text, Net, "net.prototxt"))


def layer(net: caffe_pb2.NetParameter, name: str) -> caffe_pb2.LayerParameter:
    return next(one for one in net.layer if one.name == name)


def test_current_nets_come_back_as_they_are() -> None:
    net = parse("layer { name: 'a' type: 'ReLU' }", Net).message
    upgrade = upgrade_net(net)
    assert upgrade.net is net
    assert upgrade.steps == []
    assert upgrade.origins == [("layer", 0)]


def test_v0_net_with_padding_layer() -> None:
    document = upgraded(
        """input: "data" input_dim: [1, 3, 8, 8]
        layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "padded" }
        layers {
          layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 biasterm: false
                  weight_filler { type: "xavier" } blobs_lr: 1 weight_decay: 0.5 }
          bottom: "padded" top: "conv"
        }
        layers { layer { name: "pool" type: "pool" pool: AVE kernelsize: 2 stride: 2 pad: 1 }
                 bottom: "conv" top: "pool" }
        """
    )
    wanted = parse(
        """layer { name: "input" type: "Input" top: "data"
                   input_param { shape { dim: [1, 3, 8, 8] } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
                param { lr_mult: 1 decay_mult: 0.5 }
                convolution_param { num_output: 4 kernel_size: 3 pad: 2 bias_term: false
                                    weight_filler { type: "xavier" } } }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
                pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 } }
        """,
        Net,
    )
    assert document.message == wanted.message
    nodes = list(document.nodes("layer"))
    assert [node.line for node in nodes if node] == [1, 3, 8]
    assert nodes[1] is not None
    assert nodes[1].find("name").line == 4
    assert nodes[1].find("bottom").line == 6


def test_padding_before_anything_but_conv_and_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="only a conv or pool layer") as caught:
        upgraded(
            "layers { layer { name: 'p' type: 'padding' } bottom: 'x' top: 'y' }\n"
            "layers { layer { name: 'r' type: 'relu' } bottom: 'y' top: 'z' }"
        )
    assert "net.prototxt:2:1" in str(caught.value)


def test_v0_reports_what_it_cannot_keep_and_what_it_does_not_know() -> None:
    lost = upgrade_net(parse("layers { layer { type: 'relu' num_output: 3 } }", Net).message)
    assert [note.message for note in lost.losses] == [
        "a layer of type 'relu' has no field 'num_output'; it is left out"
    ]
    with pytest.raises(ConfigError, match="no layer type 'cnv' in the V0 format"):
        upgraded("layers { layer { type: 'cnv' } }")


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_v0_field_arrives_for_every_type_that_has_it(field: str) -> None:
    new_name, holders = FIELDS[field]
    for kind, holder in holders.items():
        net = Net()
        old = net.layers.add().layer
        old.type = kind
        descriptor = old.DESCRIPTOR.fields_by_name[field]
        if descriptor.message_type:
            getattr(old, field).type = "gaussian"
        else:
            samples = {str: "s", float: 0.25, bool: True, int: 1}
            setattr(old, field, samples[type(descriptor.default_value)])
        (new,) = upgrade_net(net).net.layer
        value = getattr(getattr(new, holder), new_name)
        value = value[0] if hasattr(value, "append") else value
        assert value == getattr(old, field)


def test_type_tables_are_complete() -> None:
    assert set(V1_TYPES) == set(caffe_pb2.V1LayerParameter.LayerType.keys())
    assert set(SOLVER_TYPES) == set(caffe_pb2.SolverParameter.SolverType.keys())
    assert set(TYPES.values()) <= set(V1_TYPES)


def test_every_v1_parameter_message_has_a_home() -> None:
    new = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    for field in caffe_pb2.V1LayerParameter.DESCRIPTOR.fields:
        if field.message_type and field.name != "layer":
            assert new[field.name].message_type is field.message_type


def test_v1_lists_become_param_specs() -> None:
    (only,) = upgraded(
        "layers { name: 'c' type: CONVOLUTION blobs_lr: [1, 2] weight_decay: 0 param: ['w', 'b']"
        " blob_share_mode: PERMISSIVE include { phase: TEST } loss_weight: 2 }"
    ).message.layer
    assert (
        only
        == parse(
            "name: 'c' type: 'Convolution' loss_weight: 2 include { phase: TEST }"
            "param { name: 'w' lr_mult: 1 decay_mult: 0 share_mode: PERMISSIVE }"
            "param { name: 'b' lr_mult: 2 }",
            caffe_pb2.LayerParameter,
        ).message
    )


def test_transform_fields_of_v1_data_layers_move() -> None:
    document = files.read_net(GOLDENS / "v1_old_fields.prototxt")
    (data,) = document.message.layer
    assert data.transform_param.scale == 0.5
    assert data.transform_param.crop_size == 12
    assert data.transform_param.mean_file == "mean_raw.binaryproto"
    assert data.transform_param.HasField("mirror")
    assert not data.data_param.HasField("scale")


def test_both_layer_and_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="either 'layer' or the older 'layers'"):
        upgraded("layers { name: 'a' } layer { name: 'b' }")


@pytest.mark.parametrize("name", ["legacy_input_fields", "legacy_input_shape"])
def test_input_fields_become_the_first_layer(name: str) -> None:
    document = files.read_net(GOLDENS / f"{name}.prototxt")
    first = document.message.layer[0]
    assert first.type == "Input"
    assert len(first.top) == len(first.input_param.shape)
    (place, *_) = document.nodes("layer")
    assert place is not None
    assert place.line == 2
    assert not document.message.input


@pytest.mark.parametrize(
    "text", ["input: 'a' input_dim: [1, 2]", "input: ['a', 'b'] input_shape {}"]
)
def test_inputs_without_their_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"there must be (four|one) 'input_"):
        upgraded(text)


def test_inputs_without_any_size_are_dropped() -> None:
    net = upgraded("input: 'a' layer { name: 'r' type: 'ReLU' }").message
    assert [one.name for one in net.layer] == ["r"]


def test_batch_norm_statistics_do_not_learn() -> None:
    (norm,) = upgraded(
        "layer { type: 'BatchNorm' param { name: 'm' lr_mult: 1 } param { } param { } }"
    ).message.layer
    assert [(spec.lr_mult, spec.decay_mult) for spec in norm.param] == [(0, 0)] * 3
    assert norm.param[0].name == "m"


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("*.prototxt")), ids=lambda p: p.stem)
def test_an_upgraded_net_needs_no_further_upgrade(path: Path) -> None:
    if "base_lr" in path.read_text():
        return
    net = files.read_net(path).message
    again = parse(to_text(net), Net).message
    assert upgrade_net(again).steps == []
    assert again == net


def test_v0_and_v1_goldens_have_their_layers() -> None:
    v0 = files.read_net(GOLDENS / "v0_layers_upgrade.prototxt").message
    v1 = files.read_net(GOLDENS / "v1_layers_upgrade.prototxt").message
    for net in (v0, v1):
        assert all(one.type for one in net.layer)
        assert not net.layers
    assert layer(v1, "conv1").param[1].lr_mult == 2


def test_solver_types_become_names() -> None:
    old = caffe_pb2.SolverParameter(solver_type="RMSPROP", base_lr=0.5)
    new = upgrade_solver(old)
    assert new.type == "RMSProp"
    assert not new.HasField("solver_type")
    assert old.HasField("solver_type")


def test_solver_file_gets_its_prefix(tmp_path: Path) -> None:
    path = tmp_path / "my.solver.prototxt"
    path.write_text("base_lr: 1")
    assert files.read_solver(path).message.snapshot_prefix == str(tmp_path / "my.solver")
    path.write_text(f"snapshot_prefix: '{tmp_path}'")
    assert files.read_solver(path).message.snapshot_prefix == str(tmp_path / "my.solver")
    path.write_text("type: 'SGD'\nsolver_type: SGD")
    with pytest.raises(ConfigError, match=r"prototxt:2:14: 'solver_type' is the old form"):
        files.read_solver(path)
