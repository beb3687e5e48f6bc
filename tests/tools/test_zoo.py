"""cortado zoo, cortado convert, and zoo: names wherever weights are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cortado.model_zoo import index, zoo
from cortado.netdef import Net
from cortado.netdef.state_dicts import write_state_dict
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.files import read_net
from cortado.proto.text import parse
from cortado.tools.cli import main


def run(*words: str) -> int:
    return main(list(words))


def test_list_has_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("zoo", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == zoo.names()


def test_show_names_weights_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("zoo", "show", "resnet18", "bvlc_alexnet") == 0
    out = capsys.readouterr().out
    for word in ("zoo:resnet18@imagenet1k_v1", "11,689,512", "zoo:bvlc_alexnet@bvlc", "licence"):
        assert word in out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("zoo", "lst"), "did you mean 'list'"),
        (("zoo", "show", "resnet19"), "did you mean 'resnet1"),
        (("zoo", "pull"), "name of a model"),
        (("zoo", "verify", "resnet18"), "pull it first"),
    ],
)
def test_mistakes_are_named(
    words: tuple[str, ...],
    answer: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path))
    assert run(*words) in (2, 4)
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lenet_digits", "resnet_digits"])
def test_shipped_weights_know_their_digits(name: str) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float()[:, None]
    net = zoo.load(name, weights=f"zoo:{name}")
    with torch.no_grad():
        found = net(data=images)["prob"].argmax(1)
    assert (found == torch.from_numpy(digits.target)).float().mean() > 0.98


def test_shipped_weights_are_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("zoo", "verify", "lenet_digits") == 0
    assert "4 layers" in capsys.readouterr().out


def test_pull_from_a_mirror_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for torchvision's file, with its own digest in the index."""
    from dataclasses import replace
    from hashlib import sha256

    import torchvision

    from cortado.model_zoo.download import Checksum, RemoteFile

    twin = torchvision.models.squeezenet1_1(weights=None)
    usb = tmp_path / "usb"
    usb.mkdir()
    write_state_dict(usb / "w.pth", twin.state_dict())
    digits = sha256((usb / "w.pth").read_bytes()).hexdigest()[:8]
    model = index.find("squeezenet1_1")
    entry = next(iter(model.weights().values()))
    remote = RemoteFile("https://publisher.example/w.pth", Checksum("sha256", digits))
    monkeypatch.setattr(
        index.Model, "weights", lambda self: {entry.name: replace(entry, remote=remote)}
    )
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path / "home"))
    assert run("zoo", "pull", "squeezenet1_1", "--mirror", f"file://{usb}") == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_relative_to(tmp_path / "home")
    assert run("zoo", "verify", "squeezenet1_1") == 0
    net = zoo.load("squeezenet1_1", weights="zoo:squeezenet1_1")
    assert torch.equal(net.layer("conv1").layer.weight, twin.features[0].weight)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run("zoo", "verify", "squeezenet1_1") == 4


def test_write_plain_prototxt(tmp_path: Path) -> None:
    out = tmp_path / "resnet18"
    assert run("zoo", "write", "resnet18", "--plain", "--out", str(out)) == 0
    text = (out / "net.prototxt").read_text()
    assert "block" not in text
    assert parse(text, NetParameter).message == read_net(index.find("resnet18").net_file).message
    assert run("zoo", "write", "resnet18", "--out", str(out)) == 2  # nothing is overwritten


NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 } }
"""  # noqa: E501


def test_zoo_names_work_where_files_do(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    for weights in ("zoo:lenet_digits", "zoo:lenet_digits@digits", Path("zoo:lenet_digits")):
        net = Net(tmp_path / "net.prototxt", "TEST", weights=weights)
        assert net.layer("conv1").layer.weight.any()


@pytest.mark.parametrize("ending", ["caffemodel", "h5", "safetensors", "pth"])
def test_convert_there_and_back(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other, back = str(tmp_path / f"w.{ending}"), str(tmp_path / "back.safetensors")
    assert run("convert", "zoo:lenet_digits", other, "--verify") == 0
    assert "all layers agree" in capsys.readouterr().out
    assert run("convert", other, back, "--model", "zoo:lenet_digits", "--verify") == 0
    first, second = (zoo.load("lenet_digits", weights=w) for w in ("zoo:lenet_digits", back))
    for mine, theirs in zip(first.params, second.params, strict=True):
        assert torch.equal(mine.tensor, theirs.tensor)


def test_a_caffemodel_brings_its_net(tmp_path: Path) -> None:
    source, target = str(tmp_path / "w.caffemodel"), str(tmp_path / "w.safetensors")
    zoo.load("resnet_digits", weights="zoo:resnet_digits").save(source)
    assert run("convert", source, target, "--verify") == 0


def test_convert_to_torchvisions_names(tmp_path: Path) -> None:
    import torchvision

    target = tmp_path / "w.pth"
    torch.manual_seed(0)
    net = zoo.load("resnet18")
    for step in net.steps:
        if step.type == "BatchNorm":
            step.layer.variance.fill_(2)
            step.layer.scale_factor.fill_(2)
    net.save(tmp_path / "a.caffemodel")
    words = ("--model", "zoo:resnet18", "--torch_names", "resnet18", "--verify")
    assert run("convert", str(tmp_path / "a.caffemodel"), str(target), *words) == 0
    twin = torchvision.models.resnet18(weights=None)
    twin.load_state_dict(torch.load(target, weights_only=True))
    x = torch.randn(1, 3, 224, 224)
    net.keep_blobs = True
    with torch.no_grad():
        net(data=x)
        assert torch.allclose(net.blobs["fc"], twin.eval()(x), atol=1e-4)


def test_a_difference_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cortado.proto.errors import WeightsError
    from cortado.tools.convert import compare, judge

    first = zoo.load("lenet_digits", weights="zoo:lenet_digits")
    second = zoo.load("lenet_digits", weights="zoo:lenet_digits")
    with torch.no_grad():
        second.layer("ip1").layer.bias[3] += 1
    differences = compare(first, second)
    assert next(each.layer for each in differences if each.absolute) == "drop1"
    with pytest.raises(WeightsError, match="'drop1' gives other values"):
        judge(differences, 1e-5)
    second.layer("ip1").layer.bias.data[3] = float("nan")
    with pytest.raises(WeightsError, match="'drop1'"):
        judge(compare(first, second), 1e-5)


def test_convert_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state_dict(tmp_path / "w.pth", {"a": torch.ones(2)})
    assert run("convert", str(tmp_path / "w.pth"), str(tmp_path / "b.h5")) == 2
    assert "--model FILE is needed" in capsys.readouterr().err
    words = ("--torch_names", "rsnet18")
    assert run("convert", "zoo:lenet_digits", str(tmp_path / "b.pth"), *words) == 2
    assert "did you mean 'resnet18'" in capsys.readouterr().err
