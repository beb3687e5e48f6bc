"""cortado data and extract_features: what they print, list and write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cortado.layers.data.database import open_any
from cortado.layers.data.inspection import examine, size_on_disk
from cortado.layers.data.lists import read_image_list
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.transform import read_mean
from cortado.netdef import Net
from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from cortado.tools import cli

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 }
  data_param { source: "good" backend: LMDB batch_size: 4 } }
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
GENERATOR = np.random.default_rng(5)
IMAGES = [GENERATOR.integers(0, 256, (6, 8, 3), np.uint8) for _ in range(12)]


def datum(number: int) -> caffe_pb2.Datum:
    """Every third record is encoded; labels are 0, 1, 2."""
    pixels = IMAGES[number]
    if number % 3 == 0:
        content = cv2.imencode(".png", pixels)[1].tobytes()
        return caffe_pb2.Datum(data=content, encoded=True, label=number % 3)
    planes = pixels.transpose(2, 0, 1)
    return caffe_pb2.Datum(channels=3, height=6, width=8, data=planes.tobytes(), label=number % 3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good and a bad database, and a net."""
    monkeypatch.chdir(tmp_path)
    with LmdbWriter("good") as good, LmdbWriter("bad") as bad:
        for number in range(12):
            each = datum(number)
            good.put(b"%04d" % number, each.SerializeToString())
            if number == 4:
                each.data = each.data[:-1]
            if number == 7:
                each.label = 9
            bad.put(b"%04d" % number, each.SerializeToString())
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def test_info_says_what_there_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "info", "good", "--sheet", "sheet.png", "--samples=9"]) == 0
    text = capsys.readouterr().out
    for words in (
        "good: 12 records",
        "4 encoded, 8 raw bytes",
        "3x6x8: 12",
        "labels: 3 different, from 0 to 2",
    ):
        assert words in text
    pixels = np.stack(IMAGES).astype(np.float64)
    for name, values in (
        ("mean", pixels.mean(axis=(0, 1, 2))),
        ("deviation", pixels.std(axis=(0, 1, 2))),
    ):
        assert f"{name} of each channel: {' '.join(f'{value:.3f}' for value in values)}" in text
    sheet = cv2.imread("sheet.png")
    assert sheet.shape == (3 * 110, 3 * 96, 3)
    assert size_on_disk("good") > 12 * 144


def test_the_result_does_not_depend_on_threads(here: Path) -> None:
    database = open_any("bad")
    one, three = (examine(database, threads=threads) for threads in (1, 3))
    database.close()
    assert (one.shapes, one.labels, one.bad) == (three.shapes, three.labels, three.bad)


def test_check_lists_every_bad_record(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", "good"]) == 0
    assert "all 12 records can be read" in capsys.readouterr().out
    assert cli.main(["data", "check", "bad"]) == 3
    captured = capsys.readouterr()
    assert "record '0004' of bad: the shape 3x6x8 of the datum needs 144" in captured.out
    assert "1 of 12 records are bad" in captured.err


@pytest.mark.parametrize("flag", ["--model=net.prototxt", "--classes=3"])
def test_check_holds_labels_against_a_net(
    here: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert cli.main(["data", "check", "good", flag]) == 0
    assert "all labels are below 3" in capsys.readouterr().out
    assert cli.main(["data", "check", "bad", flag]) == 3
    captured = capsys.readouterr()
    assert "record '0007' of bad: it has label 9 (must be from 0 to 2)" in captured.out
    assert "2 of 12" in captured.err


def test_what_is_exported_can_be_converted_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "export", "good", "images"]) == 0
    assert "images: 12 images" in capsys.readouterr().out
    listed = read_image_list("images/list.txt")
    assert [each.label for each in listed] == [number % 3 for number in range(12)]
    for each, pixels in zip(listed, IMAGES, strict=True):
        np.testing.assert_array_equal(cv2.imread(f"images/{each.path}"), pixels)
    assert Path(f"images/{listed[0].path}").read_bytes() == datum(0).data
    assert cli.main(["data", "export", "good", "images"]) == 3
    assert "empty folder" in capsys.readouterr().err


def test_class_weights_are_a_matrix_for_the_loss(here: Path) -> None:
    assert cli.main(["data", "info", "good", "--class_weights", "weights.binaryproto"]) == 0
    np.testing.assert_allclose(read_mean("weights.binaryproto")[0], np.eye(3))
    text = NET.replace('"SoftmaxWithLoss"', '"InfogainLoss"').replace(
        'top: "loss" }', 'top: "loss" infogain_loss_param { source: "weights.binaryproto" } }'
    )
    net = Net(parse(text, caffe_pb2.NetParameter), "TRAIN")
    net(**net.next_batch())
    assert float(net.loss.detach()) > 0
    net.close()


def test_bad_command_lines_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["inof", "good"], "must be info, check, export"),
        (["info"], "needs DB"),
        (["export", "good"], "needs DB DIR"),
        (["info", "good", "--sheet", "sheet.txt"], "PNG"),
    ):
        assert cli.main(["data", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["data", "info", "missing"]) == 3


def test_features_are_stored_as_caffe_stores_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net("net.prototxt", "TEST")
    net.save("net.caffemodel")
    net.keep_blobs = True
    net(**net.next_batch())
    wanted = {name: net.blobs[name].numpy(force=True) for name in ("data", "score")}
    net.close()
    command = "extract_features net.caffemodel net.prototxt data,score data_db,score_db 3 lmdb CPU"
    assert cli.main(command.split()) == 0
    assert "score_db: 12 records of blob score" in capsys.readouterr().out
    for name, shape in (("data", (3, 6, 8)), ("score", (3, 1, 1))):
        records = [(bytes(k), bytes(v)) for k, v in open_any(f"{name}_db").records()]
        assert [key for key, _ in records] == [b"%010d" % number for number in range(12)]
        for (_, value), values in zip(records, wanted[name], strict=False):
            found = caffe_pb2.Datum.FromString(value)
            assert (found.channels, found.height, found.width) == shape
            assert not found.HasField("label")
            np.testing.assert_array_equal(np.array(found.float_data, np.float32), values.ravel())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("net.caffemodel net.prototxt score", "6 to 8 arguments"),
        ("net.caffemodel net.prototxt score,data db 1 lmdb", "2 blobs and 1 databases"),
        ("net.caffemodel net.prototxt score db none lmdb", "number from 1"),
        ("net.caffemodel net.prototxt score db 1 hdf5", "lmdb or leveldb"),
        ("net.caffemodel net.prototxt scores db 1 lmdb", "no blob 'scores'"),
        ("net.caffemodel net.prototxt score good 1 lmdb", "exists already"),
        ("net.caffemodel net.prototxt score db 1 lmdb TPU", "CPU or GPU"),
    ],
)
def test_bad_extractions_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    net = Net("net.prototxt", "TEST")
    net.save("net.caffemodel")
    net.close()
    assert cli.main(["extract_features", *arguments.split()]) == 2
    assert words in capsys.readouterr().err
