"""Public data sets: formats, downloads that resume, and the databases built of them.

The files are tiny ones in the real formats, written here and served over HTTP from this process.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError
from cortado.tools import cli
from cortado.tools.datasets import formats
from cortado.tools.datasets.known import DATASETS
from support.file_server import Page, serving

RNG = np.random.default_rng(0)
DIGITS = {
    part: RNG.integers(0, 256, (count, 28, 28), np.uint8)
    for part, count in (("train", 7), ("t10k", 3))
}
CIFAR = {
    name: RNG.integers(0, 256, (2, 3, 32, 32), np.uint8)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
}


def idx(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


def write_mnist(folder: Path) -> None:
    for part, images in DIGITS.items():
        labels = np.arange(len(images), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))


def write_cifar10(folder: Path) -> None:
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, images in CIFAR.items():
            data = b"".join(bytes([label]) + image.tobytes() for label, image in enumerate(images))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def records(database: Path) -> list[tuple[bytes, int, np.ndarray]]:
    import lmdb

    found = []
    with (
        lmdb.open(str(database), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        for key, value in transaction.cursor():
            datum = caffe_pb2.Datum.FromString(value)
            shape = (datum.channels, datum.height, datum.width)
            found.append((key, datum.label, np.frombuffer(datum.data, np.uint8).reshape(shape)))
    return found


def test_mnist_from_files(tmp_path, capsys):
    write_mnist(tmp_path)
    out = tmp_path / "out"
    assert cli.main(["dataset", "mnist", f"--source={tmp_path}", f"--out={out}"]) == 0
    for part, prefix in (("train", "train"), ("test", "t10k")):
        stored = records(out / f"mnist_{part}_lmdb")
        assert [key for key, _, _ in stored] == [b"%08d" % i for i in range(len(DIGITS[prefix]))]
        for index, (_, label, image) in enumerate(stored):
            assert label == index
            np.testing.assert_array_equal(image, DIGITS[prefix][index][None])
    assert "is not the published file" in capsys.readouterr().err


def test_cifar10_from_files(tmp_path):
    write_cifar10(tmp_path)
    assert cli.main(["dataset", "cifar10", f"--source={tmp_path}", f"--out={tmp_path}"]) == 0
    stored = records(tmp_path / "cifar10_train_lmdb")
    expected = np.concatenate([CIFAR[f"data_batch_{number}"] for number in range(1, 6)])
    np.testing.assert_array_equal([image for _, _, image in stored], expected)
    mean = caffe_pb2.BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    np.testing.assert_allclose(
        np.array(mean.data).reshape(3, 32, 32), expected.mean(axis=0), rtol=1e-5
    )
    assert len(records(tmp_path / "cifar10_test_lmdb")) == 2


def test_fashion_mnist_from_files(tmp_path):
    write_mnist(tmp_path)
    assert cli.main(["dataset", "fashion_mnist", f"--source={tmp_path}", f"--out={tmp_path}"]) == 0
    assert len(records(tmp_path / "fashion_mnist_train_lmdb")) == len(DIGITS["train"])


def test_cifar100_has_the_fine_labels(tmp_path):
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
        for name in ("train", "test"):
            images = CIFAR["test_batch"]
            data = b"".join(bytes([7, 50 + n]) + image.tobytes() for n, image in enumerate(images))
            member = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert cli.main(["dataset", "cifar100", f"--source={tmp_path}", f"--out={tmp_path}"]) == 0
    for part in ("train", "test"):
        stored = records(tmp_path / f"cifar100_{part}_lmdb")
        assert [label for _, label, _ in stored] == [50, 51]
        np.testing.assert_array_equal([image for _, _, image in stored], CIFAR["test_batch"])
    assert (tmp_path / "mean.binaryproto").exists()


def write_imagenet(folder, with_list):
    import cv2

    for part in ("train", "val"):
        for label, name in enumerate(("n01", "n02")):
            for number in range(2):
                inside = folder / part / ("" if with_list and part == "val" else name)
                inside.mkdir(parents=True, exist_ok=True)
                pixels = np.full((9, 12, 3), 100 * label + number, np.uint8)
                path = inside / f"{name}_{number}.JPEG"
                path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    if with_list:
        names = [f"{name}_{number}.JPEG" for name in ("n02", "n01") for number in range(2)]
        lines = [f"{name} {int(name[2]) - 1}\n" for name in names]
        (folder / "val.txt").write_text("".join(lines))


@pytest.mark.parametrize("with_list", [False, True])
def test_ilsvrc12_from_folders(with_list, tmp_path, capsys):
    write_imagenet(tmp_path, with_list)
    out = tmp_path / "out"
    command = ["dataset", "ilsvrc12", f"--source={tmp_path}", f"--out={out}", "--size=8"]
    assert cli.main(command) == 0
    for part in ("train", "val"):
        stored = records(out / f"ilsvrc12_{part}_lmdb")
        assert sorted(label for _, label, _ in stored) == [0, 0, 1, 1]
        for _, label, image in stored:
            assert image.shape == (3, 8, 8)
            assert abs(int(image.mean()) - 100 * label) <= 1
    assert (out / "labels.txt").read_text() == "n01\nn02\n"
    assert caffe_pb2.BlobProto.FromString((out / "mean.binaryproto").read_bytes()).height == 8
    assert "4 images" in capsys.readouterr().out


def test_ilsvrc12_that_does_not_fit_is_refused(tmp_path, capsys):
    assert cli.main(["dataset", "ilsvrc12"]) == 2
    assert "--source" in capsys.readouterr().err
    write_imagenet(tmp_path, with_list=False)
    (tmp_path / "val" / "n01").rename(tmp_path / "val" / "n03")
    assert cli.main(["dataset", "ilsvrc12", f"--source={tmp_path}", f"--out={tmp_path}/out"]) == 3
    assert "n03" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_missing_files_are_named(name, tmp_path, capsys):
    assert cli.main(["dataset", name, f"--source={tmp_path}", f"--out={tmp_path}"]) == 3
    assert f"{next(iter(DATASETS[name].files))} is missing" in capsys.readouterr().err


def test_unknown_data_set(capsys):
    assert cli.main(["dataset", "mnits"]) == 2
    assert "did you mean 'mnist'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "no idx file"),
        (gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">I", 9) + b"abc"), "holds 3 bytes"),
        (idx(np.zeros(100, np.uint8))[:-12], "broken gzip"),
    ],
    ids=["html", "short", "truncated"],
)
def test_broken_idx_files(content, message, tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        formats.read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no archive", "broken archive"), (None, "has no member missing.bin")],
)
def test_broken_archives(content, message, tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_cifar10(tmp_path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(formats.cifar_images(path, ["missing.bin"]))


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def cifar10(tmp_path, monkeypatch, server):
    """The data set, with the checksum of the small archive that the server has."""
    write_cifar10(tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    digits = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    dataset = dataclasses.replace(DATASETS["cifar10"], files={archive.name: digits})
    monkeypatch.setitem(DATASETS, "cifar10", dataset)
    server.pages[f"/{archive.name}"] = Page(archive.read_bytes())
    return server.pages[f"/{archive.name}"]


def download(server, out, address=""):
    return cli.main(["dataset", "cifar10", f"--url={address or server.address}", f"--out={out}"])


def test_dataset_by_download(tmp_path, server, cifar10):
    out = tmp_path / "out"
    for _ in range(2):  # the second time it is there
        assert download(server, out) == 0
        assert len(records(out / "cifar10_train_lmdb")) == 10
        for part in ("train", "test"):
            shutil.rmtree(out / f"cifar10_{part}_lmdb")
    assert len(server.requests) == 1


def test_a_file_that_is_not_the_published_one_is_fetched_again(tmp_path, server, cifar10):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cifar-10-binary.tar.gz").write_bytes(b"half")
    assert download(server, tmp_path / "out") == 0
    assert len(server.requests) == 1


def test_a_download_goes_on_where_it_was_cut(tmp_path, server, cifar10):
    cifar10.cut, cifar10.cuts = 1000, 2
    assert download(server, tmp_path / "out") == 0
    assert [asked for _, asked in server.requests] == ["", "bytes=1000-", "bytes=2000-"]


def test_another_content_is_refused_as_data(tmp_path, server, cifar10, capsys):
    cifar10.content = b"something else"
    assert download(server, tmp_path / "out") == 3
    assert "md5 is" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.gz"))


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("ftp://127.0.0.1", 2, "only http, https"),
        ("http://127.0.0.1:9", 5, "--source DIR"),
        ("{server}/missing", 3, "answers 404"),
    ],
)
def test_servers_that_do_not_deliver(address, code, message, tmp_path, server, cifar10, capsys):
    assert download(server, tmp_path / "out", address.format(server=server.address)) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_the_files_of_data_sets_have_plain_names(name):
    remote = DATASETS[name].remote()
    assert [each.name for each in remote] == list(DATASETS[name].files)
    assert all(len(each.checksum.digits) == 32 for each in remote)
