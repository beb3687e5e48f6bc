"""Weights as state dicts: safetensors and PyTorch files, and torch modules' names."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from cortado.netdef import Net
from cortado.netdef.state_dicts import read_state_dict, write_state_dict
from cortado.netdef.torch_names import (
    NameRules,
    Rename,
    match,
    modules_of,
    to_torch_names,
    to_weights,
)
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.errors import SnapshotError, WeightsError
from cortado.proto.recognise import PICKLE, ZIP
from cortado.proto.text import parse

NET = """
name: "block"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "features.0" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false
    weight_filler { type: "msra" } } }
layer { name: "features.1" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param { eps: 1e-5 } }
layer { name: "features.1.affine" type: "Scale" bottom: "c" top: "c"
  scale_param { bias_term: true filler { type: "uniform" } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "fc" type: "InnerProduct" bottom: "c" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


class Twin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).relu().flatten(1))


def net(text: str = NET, phase: str = "TEST") -> Net:
    return Net(parse(text, NetParameter, "block.prototxt"), phase)


@pytest.fixture
def twin() -> Twin:
    torch.manual_seed(3)
    module = Twin()
    module.train()
    for _ in range(3):
        module(torch.randn(4, 3, 8, 8) * 2 + 1)  # statistics that are not 0 and 1
    nn.init.uniform_(module.features[1].weight)
    nn.init.uniform_(module.features[1].bias)
    return module.eval()


def equal(subject: Net, module: nn.Module) -> bool:
    x = torch.randn(2, 3, 8, 8)
    return torch.allclose(subject(data=x)["fc"], module(x), atol=1e-5)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_a_torch_state_dict_loads_by_name(twin: Twin, tmp_path: Path, name: str) -> None:
    write_state_dict(tmp_path / name, twin.state_dict())
    subject = net()
    report = subject.load(tmp_path / name)
    assert report.copied == ["features.0", "features.1", "features.1.affine", "fc"]
    assert not report.ignored
    assert equal(subject, twin)


def test_the_old_torch_format_loads(twin: Twin, tmp_path: Path) -> None:
    """Many published .pth files are from before PyTorch wrote ZIP archives."""
    path = tmp_path / "old.pth"
    torch.save(twin.state_dict(), path, _use_new_zipfile_serialization=False)
    subject = net()
    subject.load(path)
    assert equal(subject, twin)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_wrapped_and_prefixed_state_dicts_load(twin: Twin, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "checkpoint.pth"
    prefixed = {f"{prefix}{name}": value for name, value in twin.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": prefixed}, path)
    subject = net()
    subject.load(path)
    assert equal(subject, twin)


def test_a_part_on_several_devices_loads(twin: Twin, tmp_path: Path) -> None:
    """Old recipes for AlexNet and VGG wrap only the convolutions."""
    path = tmp_path / "checkpoint.pth"
    state = twin.state_dict()
    torch.save({key.replace("features.", "features.module."): state[key] for key in state}, path)
    subject = net()
    assert not subject.load(path).untouched
    assert equal(subject, twin)


RENAMED = NET.replace("features.0", "conv1").replace("features.1.affine", "scale1")
RENAMED = RENAMED.replace("features.1", "bn1").replace('"fc" type', '"ip" type')


def test_modules_match_in_order_or_by_renaming(twin: Twin) -> None:
    state = dict(sorted(twin.state_dict().items(), reverse=True))  # their order says nothing
    renames = (Rename("^features.0", "conv1"), Rename("^features.1", "bn1"), Rename("^fc", "ip"))
    for rules in (NameRules(modules=("features.0", "features.1", "fc")), NameRules(renames)):
        subject = net(RENAMED)
        subject.load(to_weights(state, subject.steps, "twin", rules))
        assert equal(subject, twin)


def test_weights_without_a_head_match_in_order(twin: Twin) -> None:
    rules = NameRules(modules=modules_of(twin.state_dict()))
    body = {key: value for key, value in twin.state_dict().items() if not key.startswith("fc")}
    subject = net(RENAMED)
    report = subject.load(to_weights(body, subject.steps, "body", rules))
    assert report.copied == ["conv1", "bn1", "scale1"]
    assert report.untouched == ["ip"]


def test_in_order_needs_as_many_modules_as_layers(twin: Twin) -> None:
    with pytest.raises(WeightsError, match=r"2 modules .* 3 layers"):
        match(twin.state_dict(), net().steps, NameRules(modules=("features.0", "fc")))


@pytest.mark.parametrize(
    ("key", "becomes"),
    [
        ("blocks.0.0.w", "unit1.w"),
        ("blocks.2.1.w", "unit4.w"),
        ("blocks.3.0.w", "blocks.3.0.w"),  # there are three stages
        ("stem.w", "stem.w"),
    ],
)
def test_blocks_of_stages_are_counted_through(key: str, becomes: str) -> None:
    rename = Rename(r"^blocks\.(?P<stage>\d)\.(?P<block>\d)\.", "unit{n}.", (1, 2, 3))
    assert rename.apply(key) == becomes


def test_a_convolution_over_everything_is_a_product(twin: Twin) -> None:
    state = twin.state_dict()
    state["fc.weight"] = state["fc.weight"].reshape(5, 4, 6, 6)
    subject = net()
    subject.load(to_weights(state, subject.steps, "twin"))
    assert equal(subject, twin)


def test_statistics_go_on_moving_as_in_torch(twin: Twin) -> None:
    text = NET.replace("eps: 1e-5", "eps: 1e-5 moving_average_fraction: 0.9")
    subject = net(text, phase="TRAIN")
    subject.load(to_weights(twin.state_dict(), subject.steps, "twin"))
    images = torch.randn(2, 3, 8, 8)
    subject(data=images)
    twin.train()(images)
    back = to_torch_names(subject.layer_blobs(), subject.steps, twin.state_dict())
    for key in ("features.1.running_mean", "features.1.running_var"):
        assert torch.allclose(back[key], twin.state_dict()[key], rtol=1e-5)


def test_torch_names_round_trip(twin: Twin) -> None:
    subject = net()
    state = twin.state_dict()
    subject.load(to_weights(state, subject.steps, "twin"))
    wanted = {name: value.to("meta") for name, value in state.items()}
    back = to_torch_names(subject.layer_blobs(), subject.steps, wanted)
    assert list(back) == list(state)
    other = Twin()
    other.load_state_dict(back)
    assert equal(subject, other.eval())


def test_statistics_that_caffe_summed_become_means() -> None:
    subject = net()
    for step in subject.steps:
        if step.type == "BatchNorm":
            step.layer.mean.fill_(6)
            step.layer.variance.fill_(8)
            step.layer.scale_factor.fill_(2)
    wanted = {name: value.to("meta") for name, value in Twin().state_dict().items()}
    state = to_torch_names(subject.layer_blobs(), subject.steps, wanted)
    assert state["features.1.running_mean"].tolist() == [3] * 4
    assert state["features.1.running_var"].tolist() == [4] * 4


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_own_state_dicts_round_trip(tmp_path: Path, name: str) -> None:
    first, second = net(phase="TRAIN"), net(phase="TRAIN")
    first(data=torch.randn(2, 3, 8, 8))
    first.save(tmp_path / name)
    second.load(tmp_path / name)
    for mine, theirs in zip(first.params, second.params, strict=True):
        assert torch.equal(mine.tensor, theirs.tensor)
    assert "features.1.scale_factor" in read_state_dict(tmp_path / name, _kind(name))[0]


def _kind(name: str) -> str:
    return ZIP if name.endswith(".pth") else "a safetensors file"


def test_a_modules_own_state_dict_loads(tmp_path: Path) -> None:
    """Torch forbids dots in the names of modules, so a Net's own names have underscores."""
    first, second = net(), net()
    write_state_dict(tmp_path / "w.safetensors", first.state_dict())
    assert not second.load(tmp_path / "w.safetensors").ignored
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(first(data=x)["fc"], second(data=x)["fc"])


def test_strangers_are_listed_and_other_shapes_refused(twin: Twin, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_state_dict(path, twin.state_dict() | {"aux.conv.weight": torch.zeros(3)})
    assert net().load(path).ignored == ["aux.conv"]
    other = net(NET.replace("num_output: 5", "num_output: 6"))
    before = other.params[0].tensor.clone()
    with pytest.raises(WeightsError, match=r"fc \(weight: \[5, 144\] in the file, \[6, 144\]"):
        other.load(path)
    assert torch.equal(before, other.params[0].tensor)
    report = other.load(path, fresh=["f?"])
    assert report.fresh == ["fc"]
    assert report.copied == ["features.0", "features.1", "features.1.affine"]


def test_half_precision_is_stored_when_asked_for(twin: Twin, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    write_state_dict(path, twin.state_dict(), torch.float16)
    subject = net()
    subject.load(path)
    weight = subject.layer("fc").layer.weight
    assert weight.dtype == torch.float32
    assert torch.allclose(weight, twin.fc.weight, rtol=1e-3)


class Canary:
    """Unpickling this makes a folder: proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["zip", "old", "bare", "inside"])
def test_no_code_in_a_file_runs(twin: Twin, tmp_path: Path, form: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.pth"
    if form == "bare":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        content = {"state_dict": twin.state_dict(), "x": Canary(canary)}
        torch.save(
            content if form == "inside" else Canary(canary),
            path,
            _use_new_zipfile_serialization=form != "old",
        )
    with pytest.raises(SnapshotError, match=r"refused.*could run code"):
        net().load(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_damaged_files_are_refused(twin: Twin, tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    write_state_dict(path, twin.state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SnapshotError, match=name):
        net().load(path)


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save([1, 2], path)
    with pytest.raises(SnapshotError, match="no tensors by name"):
        read_state_dict(path, ZIP)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(SnapshotError, match=r"w\.pth"):
        read_state_dict(path, PICKLE)
