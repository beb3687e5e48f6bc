"""cortado zoo, cortado convert, and zoo: names wherever weights are wanted."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from cortado.model_zoo import index, zoo
from cortado.model_zoo.download import Checksum, RemoteFile
from cortado.netdef import Net
from cortado.netdef.state_dicts import write_state_dict
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.files import read_net
from cortado.proto.text import parse
from cortado.tools.cli import main
from support.file_server import Page, Server, serving


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


def test_shipped_weights_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("zoo", "verify", "lenet_digits", "resnet_digits") == 0
    assert "4 layers" in capsys.readouterr().out
    entry = index.find("lenet_digits").find_weights()
    assert entry.shipped is not None
    other = tmp_path / "weights.safetensors"
    other.write_bytes(entry.shipped.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(index.Model, "find_weights", lambda *_: replace(entry, shipped=other))
    assert run("zoo", "verify", "lenet_digits") == 4
    assert "sha256 is" in capsys.readouterr().err


def published_as(entry: index.WeightsEntry, url: str, digits: str) -> index.WeightsEntry:
    checksum = Checksum("sha256", digits)
    return replace(entry, checksum=checksum, remote=RemoteFile(url, checksum, max_bytes=10**7))


class Canary:
    """Unpickling this makes a folder: proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Page, str], Server]]:
    """A function that lets a server give a page in the place of SqueezeNet's weights."""
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path / "home"))
    entry = index.find("squeezenet1_1").find_weights()
    with serving() as server:

        def publish(page: Page, digits: str = "") -> Server:
            server.pages["/w.pth"] = page
            digits = digits or sha256(page.content).hexdigest()
            published = published_as(entry, f"{server.address}/w.pth", digits)
            monkeypatch.setattr(index.Model, "weights", lambda self: {entry.name: published})
            return server

        yield publish


@pytest.mark.parametrize(
    ("page", "digits", "code", "message"),
    [
        (Page(status=404), "", 4, "answers 404"),
        (Page(status=503), "", 5, "503 Service"),
        (Page(b"<html>", kind="text/html"), "", 4, "HTML page"),
        (Page(b"abc"), "0123456789", 4, "sha256 is ba7816bf8f, must be 0123456789"),
        (Page(b"abc" * 999, ranges=False, cut=7, cuts=99), "", 4, "incomplete, 7 bytes came"),
        (Page(status=302, location="file:///etc/passwd"), "", 4, "not followed"),
        (Page(bytes(10**7 + 1)), "", 4, "at most 10,000,000"),
    ],
    ids=["missing", "overloaded", "html", "other", "short", "redirect", "large"],
)
def test_downloads_that_fail_leave_nothing(
    publish: Callable[..., Server],
    page: Page,
    digits: str,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    publish(page, digits)
    assert run("zoo", "pull", "squeezenet1_1") == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".lock", ".TAG"}
    assert len(left) == 2


def test_a_pickle_with_the_right_checksum_runs_no_code(
    publish: Callable[..., Server], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    publish(Page(pickle.dumps({"features.0.weight": Canary(tmp_path / "canary")})))
    assert run("zoo", "pull", "squeezenet1_1") == 0
    assert run("zoo", "verify", "squeezenet1_1") == 4
    assert "could run code" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()


def test_weights_of_another_model_do_not_fit(
    publish: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    weight, bias = torch.ones(96, 3, 7, 7), torch.ones(96)  # as SqueezeNet 1.0 has them
    torch.save({"features.0.weight": weight, "features.0.bias": bias}, buffer)
    publish(Page(buffer.getvalue()))
    assert run("zoo", "pull", "squeezenet1_1") == 0
    assert run("zoo", "verify", "squeezenet1_1") == 4
    error = capsys.readouterr().err
    assert "do not fit (1): conv1 (" in error
    assert "[96, 3, 7, 7] in the file" in error


def test_pull_from_a_mirror_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for torchvision's file, with its own digest in the index."""
    import torchvision

    twin = torchvision.models.squeezenet1_1(weights=None)
    usb = tmp_path / "usb"
    usb.mkdir()
    write_state_dict(usb / "w.pth", twin.state_dict())
    digits = sha256((usb / "w.pth").read_bytes()).hexdigest()[:8]
    model = index.find("squeezenet1_1")
    entry = next(iter(model.weights().values()))
    published = published_as(entry, "https://publisher.example/w.pth", digits)
    monkeypatch.setattr(index.Model, "weights", lambda self: {entry.name: published})
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
