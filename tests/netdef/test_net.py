"""The net as a torch module: inputs and outputs, losses, gradients, shared parameters, tracing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from cortado.netdef import Net
from cortado.netdef.blueprint import draw
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError, ResourceError
from cortado.proto.text import parse

LENET = """
name: "small"
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 1 dim: 12 dim: 12 } shape { dim: 2 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool1" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def net(text: str, phase: str = "TRAIN", **options: object) -> Net:
    return Net(parse(text, caffe_pb2.NetParameter, "net.prototxt"), phase, **options)  # type: ignore[arg-type]


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "data": torch.randn(2, 1, 12, 12, generator=generator),
        "label": torch.tensor([0.0, 2.0]),
    }


def faults(text: str, phase: str = "TRAIN") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        net(text, phase)
    return [str(fault) for fault in caught.value.faults]


def test_inputs_outputs_and_shapes() -> None:
    train, test = net(LENET), net(LENET, "TEST")
    assert train.inputs == {"data": (2, 1, 12, 12), "label": (2,)}
    assert train.outputs == ["loss"]
    assert test.outputs == ["acc", "loss"]
    assert train.blob_shapes["pool1"] == (2, 4, 5, 5)
    assert train.loss_weights == {"loss": 1.0}


def test_state_dict_names_and_multipliers() -> None:
    subject = net(LENET)
    assert list(subject.state_dict()) == ["conv1.weight", "conv1.bias", "ip.weight", "ip.bias"]
    assert [(p.name, p.lr_mult, p.decay_mult) for p in subject.params] == [
        ("conv1.weight", 1, 1),
        ("conv1.bias", 2, 0),
        ("ip.weight", 1, 1),
        ("ip.bias", 1, 1),
    ]


def test_forward_gives_outputs_and_loss_and_its_gradients() -> None:
    subject = net(LENET)
    outputs = subject(**batch())
    assert list(outputs) == ["loss"]
    subject.loss.backward()
    assert all(param.tensor.grad is not None for param in subject.params)
    assert subject.loss.item() == pytest.approx(outputs["loss"].item())


def test_run_is_the_same_without_state() -> None:
    subject = net(LENET)
    outputs, loss = subject.run(batch())
    assert torch.equal(subject(**batch())["loss"], outputs["loss"])
    assert torch.equal(subject.loss, loss)


def test_kept_blobs_show_the_final_content_of_an_in_place_blob() -> None:
    subject = net(LENET)
    subject.keep_blobs = True
    subject(**batch())
    assert {"data", "conv1", "pool1", "ip", "loss"} <= set(subject.blobs)
    assert subject.blobs["conv1"].min() >= 0


def test_blobs_are_not_kept_unless_asked_for() -> None:
    subject = net(LENET)
    subject(**batch())
    with pytest.raises(RuntimeError, match="keep_blobs"):
        _ = subject.blobs


def test_any_batch_size_runs() -> None:
    subject = net(LENET)
    subject(data=torch.randn(5, 1, 12, 12), label=torch.zeros(5))
    assert subject.loss.isfinite()


def test_wrong_inputs_are_named() -> None:
    subject = net(LENET)
    with pytest.raises(ConfigError, match=r"'label' is missing.*did you mean 'label'"):
        subject(data=torch.zeros(2, 1, 12, 12), lable=torch.zeros(2))


def test_compiles_whole() -> None:
    subject = net(LENET)
    eager = subject(**batch())["loss"]
    compiled = torch.compile(subject, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(**batch())["loss"], eager)


def test_exports_whole() -> None:
    body = LENET.partition('layer { name: "conv1"')[2]
    deploy = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 '
    deploy += (
        'dim: 12 dim: 12 } } }\nlayer { name: "conv1"' + body.partition('layer { name: "acc')[0]
    )
    subject = net(deploy, "TEST")
    data = {"data": batch()["data"]}
    exported = torch.export.export(subject, (), data)
    assert torch.allclose(exported.module()(**data)["ip"], subject(**data)["ip"])


def test_deep_copies_are_independent() -> None:
    subject = net(LENET)
    other = copy.deepcopy(subject)
    with torch.no_grad():
        other.params[0].tensor.zero_()
    assert subject.params[0].tensor.abs().sum() > 0
    assert torch.equal(other.layer("conv1").layer.blob(0), torch.zeros(4, 1, 3, 3))


TWO_LOSSES = """
layer { name: "in" type: "Input" top: "a" top: "b"
  input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "one" type: "EuclideanLoss" bottom: "ip" bottom: "b" top: "one" loss_weight: 0.5 }
layer { name: "two" type: "EuclideanLoss" bottom: "ip" bottom: "a" top: "two" }
layer { name: "sum" type: "Power" bottom: "ip" top: "sum" loss_weight: 2 }
"""


def test_the_loss_is_the_weighted_sum_of_all_loss_tops() -> None:
    subject = net(TWO_LOSSES)
    out = subject(a=torch.randn(2, 3), b=torch.randn(2, 3))
    expected = 0.5 * out["one"] + out["two"] + 2 * out["sum"].sum()
    assert torch.allclose(subject.loss, expected)
    assert subject.loss_weights == {"one": 0.5, "two": 1.0, "sum": 2.0}


def test_loss_weight_count() -> None:
    (fault,) = faults(TWO_LOSSES.replace("loss_weight: 2", "loss_weight: 2 loss_weight: 1"))
    assert fault.startswith("net.prototxt:8:")
    assert "loss_weight" in fault


SHARED = """
layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 2 dim: 4 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "a" top: "x" param { name: "w" FIRST }
  inner_product_param { num_output: 4 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" SECOND }
  inner_product_param { num_output: WIDTH bias_term: false } }
layer { name: "loss" type: "Power" bottom: "y" top: "l" loss_weight: 1 }
"""


def shared(first: str = "", second: str = "", width: int = 4) -> str:
    return SHARED.replace("FIRST", first).replace("SECOND", second).replace("WIDTH", str(width))


def test_shared_parameters_are_one_tensor_and_gather_both_gradients() -> None:
    subject = net(shared())
    first, second = subject.layer("ip1").layer, subject.layer("ip2").layer
    assert first.blob(0) is second.blob(0)
    assert [param.name for param in subject.params] == ["ip1.weight"]
    x = torch.randn(2, 4)
    subject(a=x)
    subject.loss.backward()
    w = first.blob(0).detach().clone().requires_grad_()
    (x @ w.T @ w.T).sum().backward()
    assert torch.allclose(first.blob(0).grad, w.grad, atol=1e-6)


def test_sharing_survives_a_move_to_another_dtype() -> None:
    subject = net(shared()).double()
    assert subject.layer("ip1").layer.blob(0) is subject.layer("ip2").layer.blob(0)


def test_permissive_sharing_sees_another_shape() -> None:
    text = shared("", "share_mode: PERMISSIVE", width=2).replace(
        'bottom: "x" top: "y"', 'bottom: "wide" top: "y"'
    )
    text = text.replace(
        'layer { name: "ip2"',
        'layer { name: "wide" type: "Concat" bottom: "x" bottom: "x" top: "wide" }\n'
        'layer { name: "ip2"',
    )
    subject = net(text)
    owner = subject.layer("ip1").layer.blob(0)
    assert subject.layer("ip2").layer.blob(0).shape == (2, 8)
    subject(a=torch.randn(2, 4))
    subject.loss.backward()
    before = owner.grad.clone()
    with torch.no_grad():
        owner.mul_(2)
    assert torch.equal(subject.layer("ip2").layer.blob(0).flatten(), owner.flatten())
    assert before.abs().sum() > 0


def test_shared_shapes_must_agree() -> None:
    (fault,) = faults(shared(width=3))
    assert "[4, 4]" in fault
    assert "[3, 4]" in fault
    assert "the owner is here" in fault


def test_shared_multipliers_must_agree_and_may_be_stated_late() -> None:
    (fault,) = faults(shared("lr_mult: 2", "lr_mult: 3"))
    assert "lr_mult is 2; here it is 3" in fault
    assert net(shared("", "lr_mult: 3")).params[0].lr_mult == 3


def test_frozen_parameters_ask_for_no_gradient() -> None:
    text = LENET.replace(
        "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }",
        "param { lr_mult: 0 } param { lr_mult: 0 }",
    )
    subject = net(text)
    assert not subject.layer("conv1").needs_backward
    assert subject.layer("ip").needs_backward
    subject(**batch())
    subject.loss.backward()
    assert subject.layer("conv1").layer.blob(0).grad is None


def test_propagate_down_false_cuts_a_bottom_off() -> None:
    subject = net(LENET.replace('top: "pool1"', 'top: "pool1" propagate_down: false'))
    subject(**batch())
    subject.loss.backward()
    assert subject.layer("conv1").layer.blob(0).grad is None
    assert not subject.layer("conv1").needs_backward


def test_force_backward_reaches_inputs_and_frozen_parameters() -> None:
    subject = net("force_backward: true\n" + LENET.replace("lr_mult: 1 }", "lr_mult: 0 }"))
    subject.keep_blobs = True
    subject(**batch())
    data = subject.blobs["data"]
    subject.loss.backward()
    assert data.grad is not None
    assert subject.layer("conv1").layer.blob(0).grad is not None


def test_test_net_shares_parameters_with_the_train_net() -> None:
    train = net(LENET)
    test = net(LENET, "TEST", share_with=train)
    with torch.no_grad():
        train.params[0].tensor.fill_(0.5)
    assert test.params[0].tensor is train.params[0].tensor


def test_unknown_type_arity_and_field_faults_are_reported_together() -> None:
    text = (
        LENET.replace('type: "ReLU"', 'type: "RELU"')
        .replace('bottom: "ip" bottom: "label" top: "loss"', 'bottom: "ip" top: "loss"')
        .replace("num_output: 4", "num_output: 0")
    )
    found = faults(text)
    assert any("'RELU'" in fault and "did you mean 'ReLU'" in fault for fault in found)
    assert any("SoftmaxWithLoss must have" in fault for fault in found)
    assert any("num_output" in fault for fault in found)
    assert len(found) == 3
    assert all(fault.startswith("net.prototxt:") for fault in found)


def test_kernel_larger_than_its_input() -> None:
    (fault,) = faults(LENET.replace("kernel_size: 3", "kernel_size: 30"))
    assert "'conv1'" in fault
    assert "30" in fault
    assert "12" in fault


def test_absurd_sizes_are_refused_before_allocation() -> None:
    with pytest.raises(ResourceError, match=r"GiB.*'ip'"):
        net(LENET.replace("num_output: 3", "num_output: 900000000"))
    (fault,) = faults(LENET.replace("dim: 2 dim: 1", "dim: 2000000000 dim: 1"))
    assert "2^31" in fault
    (fault,) = faults(LENET.replace("num_output: 3", "num_output: 2000000000"))
    assert "2^31" in fault
    assert "[2, 2000000000]" in fault


def test_weights_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, second = net(LENET), net(LENET)
    for name in ("w.caffemodel", "w.caffemodel.h5"):
        first.save(tmp_path / name)
        report = second.load(tmp_path / name)
        assert report.copied == ["conv1", "ip"]
        for mine, theirs in zip(first.params, second.params, strict=True):
            assert torch.equal(mine.tensor, theirs.tensor)


def test_two_layers_with_weights_must_not_have_one_name() -> None:
    (fault,) = faults(LENET.replace('name: "ip"', 'name: "conv1"'))
    assert "same name" in fault
    assert "the first one is here" in fault


def test_two_layers_without_weights_may_share_a_name() -> None:
    text = LENET.replace('name: "relu1"', 'name: "pool1"')
    plan = draw(parse(text, caffe_pb2.NetParameter), "TRAIN")
    assert len(plan.warnings) == 1
    assert net(text)(**batch())["loss"].isfinite()


def test_faults_of_text_graph_and_layers_are_reported_together(tmp_path: Path) -> None:
    text = (
        LENET.replace("num_output: 3", "num_outputs: 3")
        .replace('bottom: "pool1"', 'bottom: "pol1"')
        .replace('type: "ReLU"', 'type: "Relu"')
        .replace("pool: MAX", "pool: MAXIMUM")
        .replace("kernel_size: 3", "kernel_size: 31415")
    )
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Net(tmp_path / "net.prototxt")
    found = [str(fault) for fault in caught.value.faults]
    for words in ("num_outputs", "'pol1'", "'Relu'", "MAXIMUM", "31415"):
        assert sum(words in fault for fault in found) == 1, words
    assert len(found) == 5


def test_a_loss_without_a_top_counts_but_is_no_output() -> None:
    with_top = net(LENET)
    without = net(
        LENET.replace('bottom: "label" top: "loss"', 'bottom: "label"'), share_with=with_top
    )
    assert without.outputs == []
    assert without(**batch()) == {}
    with_top(**batch())
    assert torch.equal(without.loss, with_top.loss)
    found = faults(LENET.replace('bottom: "pool1" top: "ip"', 'bottom: "pool1"'))
    assert any("InnerProduct must have 1 top, got 0" in fault for fault in found)
