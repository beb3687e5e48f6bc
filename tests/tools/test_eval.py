"""cortado eval: the same numbers as the net's own layers give, on data of every kind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.mean import write_mean
from cortado.layers.data.preprocessing import Views
from cortado.netdef import Net
from cortado.netdef.deploy import deploy
from cortado.proto.caffe_pb2 import Datum
from cortado.proto.files import read_net
from cortado.proto.text import to_text
from cortado.tools import cli
from cortado.tools.classification.model import open_model
from cortado.tools.pycaffe.io import oversample

CLASSES = 7
IMAGES = 23
NET = """
name: "tiny"
layer { name: "images" type: "Data" top: "data" top: "label"
  transform_param { %s } data_param { source: "%s" batch_size: 23 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 stride: 2 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "score" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "top1" type: "Accuracy" bottom: "score" bottom: "label" top: "top1" }
layer { name: "top5" type: "Accuracy" bottom: "score" bottom: "label" top: "top5"
  accuracy_param { top_k: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
TRANSFORMS = [
    "mean_value: 100 mean_value: 110 mean_value: 120 scale: 0.02",
    'crop_size: 12 mean_file: "mean.binaryproto" scale: 0.01',
    "crop_size: 9 resize_side: 11 scale: 0.01",
    "crop_size: 9 force_gray: true mean_value: 99 scale: 0.02",
    "crop_size: 9 scale: 0.01 channel_order: 'RGB'",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with images as files, in a list, in folders, and in databases."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    lines = []
    with LmdbWriter("raw") as raw, LmdbWriter("encoded") as encoded:
        for number in range(IMAGES):
            label = number % CLASSES
            pixels = rng.integers(0, 256, (14, 16, 3), np.uint8)
            folder = tmp_path / "folders" / f"kind{label}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{number:02d}.png"
            cv2.imwrite(str(path), pixels)
            lines.append(f"kind{label}/{path.name} {label}\n")
            datum = Datum(data=path.read_bytes(), encoded=True, label=label)
            encoded.put(b"%05d" % number, datum.SerializeToString())
            planes = pixels.transpose(2, 0, 1).tobytes()
            datum = Datum(channels=3, height=14, width=16, data=planes, label=label)
            raw.put(b"%05d" % number, datum.SerializeToString())
    Path("list.txt").write_text("".join(lines))
    Path("names.txt").write_text("".join(f"kind{label}\n" for label in range(CLASSES)))
    write_mean(rng.random((3, 14, 16), np.float32) * 255, "mean.binaryproto")
    return tmp_path


def build(transform: str = TRANSFORMS[1], database: str = "raw") -> Net:
    """net.prototxt with weights w.caffemodel, as trained for a moment."""
    Path("net.prototxt").write_text(NET % (transform, database))
    torch.manual_seed(1)
    net = Net("net.prototxt", "TRAIN")
    net(**net.next_batch())  # statistics for BatchNorm
    net.save("w.caffemodel")
    net.close()
    return net


def run_eval(*tokens: str, code: int = 0) -> dict[str, object]:
    """What --json of a run has; empty where it must fail with ``code``."""
    assert cli.main(["eval", *tokens, "--json=r.json"]) == code
    return json.loads(Path("r.json").read_text()) if code == 0 else {}


def own_blobs() -> dict[str, torch.Tensor]:
    """What the net itself gives for its data, as cortado test reports it, with its logits."""
    net = Net("net.prototxt", "TEST", weights="w.caffemodel")
    net.keep_blobs = True
    with torch.no_grad():
        net(**net.next_batch())
    net.close()
    return net.blobs


def write_deploy() -> None:
    """deploy.prototxt for net.prototxt, without what cortado deploy notes of the preprocessing."""
    net = deploy(read_net("net.prototxt"))
    net.layer[0].ClearField("transform_param")
    Path("deploy.prototxt").write_text(to_text(net))


# -- the same numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("database", ["raw", "encoded"])
def test_a_database_gives_what_cortado_test_says(place, transform, database, caplog):
    if "gray" in transform and database == "raw":
        transform = TRANSFORMS[0] + " crop_size: 8"  # raw records keep their colours
    build(transform, database)
    caplog.set_level("INFO")
    tokens = ["--model=net.prototxt", "--weights=w.caffemodel", "--iterations=1"]
    assert cli.main(["test", *tokens]) == 0
    words = [record.getMessage().split() for record in caplog.records]
    wanted = {line[0]: float(line[2]) for line in words if len(line) > 2 and line[1] == "="}
    found = run_eval("net.prototxt", "--weights=w.caffemodel", f"--data={database}", "--batch=5")
    assert found["images"] == IMAGES
    assert found["top1"] == pytest.approx(wanted["top1"], abs=1e-6)
    assert found["top5"] == pytest.approx(wanted["top5"], abs=1e-6)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    # The snapshot holds its net and how its images were prepared.
    again = run_eval("w.caffemodel", f"--data={database}")
    assert (again["top1"], again["top5"]) == (found["top1"], found["top5"])
    assert again["loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("transform", TRANSFORMS[:4])
def test_files_give_the_logits_of_the_data_layer(place, transform):
    build(transform, "encoded")
    wanted = own_blobs()["score"]
    write_deploy()
    files = [line.split()[0] for line in Path("list.txt").read_text().splitlines()]
    for source in ("net.prototxt", "deploy.prototxt", "w.caffemodel"):
        model = open_model(source, "w.caffemodel", batch=IMAGES)
        inputs = model.preprocessing.batch([place / "folders" / file for file in files])
        assert torch.equal(inputs, own_blobs()["data"]), source
        with torch.no_grad():
            given = model.scores(inputs[:, None]).ranking
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
        model.close()


def test_files_folders_and_lists_are_the_same_as_the_database(place):
    build()
    wanted = run_eval("w.caffemodel", "--data=raw")
    for tokens in (["--data=folders"], ["--data=list.txt", "--root=folders/"]):
        found = run_eval("w.caffemodel", *tokens, "--labels=names.txt")
        assert (found["top1"], found["top5"]) == (wanted["top1"], wanted["top5"])
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
    assert found["classes"][3]["name"] == "kind3"


def test_files_of_another_size_become_as_large_as_the_records(place):
    build(TRANSFORMS[1])
    for path in Path("folders").rglob("*.png"):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (160, 140)))
    for model in ("w.caffemodel", "net.prototxt"):
        found = run_eval(model, "--weights=w.caffemodel", "--data=folders", "--labels=names.txt")
        assert (found["images"], found["skipped"]) == (IMAGES, [])


def test_ten_crops_are_the_mean_of_the_softmax(place):
    build("crop_size: 9 scale: 0.02")
    model = open_model("w.caffemodel", batch=4)
    pixels = cv2.imread("folders/kind0/00.png")
    crops = oversample([pixels], (9, 9)).transpose(0, 3, 1, 2) * np.float32(0.02)
    net = Net("net.prototxt", "TEST", weights="w.caffemodel")
    net.keep_blobs = True
    batch = torch.zeros(IMAGES, 3, 9, 9)
    batch[:10] = torch.from_numpy(crops)
    with torch.no_grad():
        net(data=batch, label=torch.zeros(IMAGES))
    wanted = net.blobs["score"].softmax(1)[:10]
    torch.testing.assert_close(model.classify([pixels], Views(10))[0], wanted.mean(0))
    both = model.classify([pixels], Views(flip=True))[0]
    torch.testing.assert_close(both, (wanted[4] + wanted[9]) / 2)
    found = run_eval("w.caffemodel", "--data=raw", "--crops=10", "--batch=7")
    assert (found["images"], found["crops"]) == (IMAGES, 10)
    files = [line.split()[0] for line in Path("list.txt").read_text().splitlines()]
    mean = model.classify([f"folders/{file}" for file in files], Views(10))
    labels = torch.arange(IMAGES) % CLASSES
    assert found["top1"] == pytest.approx(float((mean.argmax(1) == labels).float().mean()))
    assert found["loss"] == pytest.approx(
        float(-mean[torch.arange(IMAGES), labels].log().mean()), rel=1e-5
    )


def test_the_zoos_digits_work_offline(place, capsys):
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)[:200]
    with LmdbWriter("digits") as database:
        for number, image in enumerate(pixels):
            datum = Datum(channels=1, height=8, width=8, data=image.tobytes())
            datum.label = int(digits.target[number])
            database.put(b"%05d" % number, datum.SerializeToString())
    for name in ("lenet_digits", "zoo:resnet_digits"):
        found = run_eval(name, "--data=digits")
        assert found["top1"] > 0.95
        assert len(found["classes"]) == 10
    assert "top-1" in capsys.readouterr().out


# -- what is reported ------------------------------------------------------------------------------


def test_the_files_that_it_writes(place, capsys):
    build()
    tokens = ["--data=raw", "--labels=names.txt", "--csv=r.csv", "--confusion=c.png", "--rows=2"]
    found = run_eval("w.caffemodel", *tokens)
    with open("r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [f"{number:05d}" for number in range(IMAGES)]
    assert rows[8]["class"] == "kind1"
    right = sum(row["rank"] == "1" for row in rows)
    assert right / IMAGES == pytest.approx(found["top1"])
    assert sum(float(row["loss"]) for row in rows) / IMAGES == pytest.approx(
        found["loss"], rel=1e-4
    )
    for row in rows:
        assert (row["class"] == row["predicted"]) == (row["rank"] == "1")
    confused = {(each["class"], each["taken_for"]): each["times"] for each in found["confused"]}
    assert sum(confused.values()) == IMAGES - right
    assert sum(each["images"] for each in found["classes"]) == IMAGES
    assert cv2.imread("c.png").shape[2] == 3
    out = capsys.readouterr().out
    assert "the 2 worst of 7 classes" in out
    assert "most confused" in out
    assert "images/s" in out


def test_bad_records_are_listed_by_key_and_left_out(place, capsys):
    build()
    wanted = run_eval("w.caffemodel", "--data=raw")
    bad = {
        b"00003x": Datum(data=b"no image", encoded=True, label=1),
        b"00004x": Datum(channels=3, height=14, width=16, data=b"short", label=1),
        b"00005x": Datum(channels=3, height=14, width=16, data=bytes(672), label=CLASSES),
        b"00006x": Datum(channels=3, height=4, width=4, data=bytes(48), label=1),
    }
    good = {b"%05d" % number: None for number in range(IMAGES)}
    from cortado.layers.data.database import open_any

    stored = {bytes(key): bytes(value) for key, value in open_any("raw").records()}
    with LmdbWriter("mixed") as database:
        for key in sorted([*good, *bad]):
            database.put(key, bad[key].SerializeToString() if key in bad else stored[key])
    capsys.readouterr()
    found = run_eval("w.caffemodel", "--data=mixed")
    assert (found["top1"], found["images"]) == (wanted["top1"], IMAGES)
    reasons = {each["key"]: each["reason"] for each in found["skipped"]}
    assert list(reasons) == [key.decode() for key in bad]
    assert "cannot be decoded" in reasons["00003x"]
    assert "needs 672 bytes" in reasons["00004x"]
    assert "label 7 is out of range: the model has 7 classes" in reasons["00005x"]
    assert "crop_size 12 is larger" in reasons["00006x"]
    assert "left out: 4 images" in capsys.readouterr().out


def test_only_bad_records_are_an_error(place, capsys):
    build()
    with LmdbWriter("broken") as database:
        database.put(b"a", Datum(data=b"no image", encoded=True).SerializeToString())
    run_eval("w.caffemodel", "--data=broken", code=3)
    assert "none of its images can be used: a: " in capsys.readouterr().err


def test_a_score_that_is_no_number_is_an_error(place, capsys):
    net = build()
    net.load("w.caffemodel")
    with torch.no_grad():
        net.layer("score").layer.bias[2] = float("nan")
    net.save("nan.caffemodel")
    run_eval("nan.caffemodel", "--data=raw", code=7)
    assert "00000: the net gives a score that is not finite" in capsys.readouterr().err


# -- preprocessing: who is believed ----------------------------------------------------------------


def test_flags_win_and_the_log_says_so(place, caplog):
    build("crop_size: 12 mean_value: 100 scale: 0.02")
    plain = run_eval("w.caffemodel", "--data=raw")
    same = run_eval("w.caffemodel", "--data=raw", "--mean=100", "--scale=0.02")
    assert (same["top1"], same["loss"]) == (plain["top1"], plain["loss"])
    assert "from the flags" not in caplog.text
    other = run_eval("w.caffemodel", "--data=raw", "--mean=mean.binaryproto", "--scale=0.5")
    assert other["loss"] != plain["loss"]
    assert "scale: 0.5 from the flags, not 0.02 from the weights" in caplog.text
    assert "mean: an image of 3x14x16" in caplog.text
    assert other["preprocessing_from"] == "the weights and the flags"
    bgr = run_eval("w.caffemodel", "--data=raw", "--channel_order=rgb")
    assert "channel order: RGB from the flags, not BGR from the weights" in caplog.text
    both = run_eval("w.caffemodel", "--data=raw", "--channel_order=rgb", "--data_order=rgb")
    assert bgr["loss"] != both["loss"] == plain["loss"]


def test_a_data_layer_that_contradicts_the_weights_is_named(place, caplog):
    build("crop_size: 12 mean_value: 100 scale: 0.02")
    Path("net.prototxt").write_text(NET % ("crop_size: 12 scale: 0.5", "raw"))
    line = "scale: 0.5 from the data layer 'images', not 0.02 from the weights"
    for command in (
        ["test", "--model=net.prototxt", "--weights=w.caffemodel", "--iterations=1"],
        ["eval", "net.prototxt", "--weights=w.caffemodel", "--data=raw"],
    ):
        caplog.clear()
        assert cli.main(command) == 0
        assert line in caplog.text


def test_classify_prepares_as_trained(place, caplog):
    build("crop_size: 12 mean_value: 100 scale: 0.02")
    write_deploy()
    wanted = own_blobs()["score"].softmax(1)
    flags = ["--model_def=deploy.prototxt", "--pretrained_model=w.caffemodel", "--center_only"]
    assert cli.main(["classify", "folders/kind0", "out.npy", "--ext=png", *flags]) == 0
    torch.testing.assert_close(torch.from_numpy(np.load("out.npy")), wanted[::CLASSES])
    assert "from the flags" not in caplog.text
    flags += ["--input_scale=0.01", "--mean_file="]
    assert cli.main(["classify", "folders/kind0/00.png", "out.npy", *flags]) == 0
    assert "scale: 0.01 from the flags, not 0.02 from the weights" in caplog.text
    assert "mean: 0 from the flags, not 100 from the weights" in caplog.text
    model = open_model("w.caffemodel")
    model.preprocessing.transform = type(model.preprocessing.transform)(1, crop_size=12, scale=0.01)
    expected = model.classify(["folders/kind0/00.png"])
    torch.testing.assert_close(torch.from_numpy(np.load("out.npy")), expected)


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "code", "message"),
    [
        (["lenet_digit", "--data=raw"], 2, "did you mean 'lenet_digits'?"),
        (["zoo:nothing", "--data=raw"], 2, "there is no model 'nothing'"),
        (["nin_imagenet", "--data=raw"], 2, "no weights are published for 'nin_imagenet'"),
        (["net.prototxt", "--data=raw"], 2, "--weights FILE is needed"),
        (["w.safetensors", "--data=raw"], 2, "holds weights without their net"),
        (["mean.binaryproto", "--data=raw"], 4, "must be a prototxt or a .caffemodel"),
        (["w.caffemodel"], 2, "--data is needed"),
        (["w.caffemodel", "--data=nowhere"], 3, "nowhere: there is no such database, folder"),
        (["w.caffemodel", "--data=raw", "--crops=3"], 2, "must be 1 or 10"),
        (["w.caffemodel", "--data=raw", "--crops=10", "--flip"], 2, "mirror images already"),
        (["w.caffemodel", "--data=raw", "--crop=5"], 4, "score (weight: [7, 125] in the file"),
        (
            ["deploy.prototxt", "--weights=w.caffemodel", "--data=raw", "--crop=5"],
            2,
            "takes images of 3x12x12; the preprocessing (from the weights and the flags) makes",
        ),
        (["w.caffemodel", "--data=raw", "--resize=3xx"], 2, "--resize must be a size or"),
        (["w.caffemodel", "--data=raw", "--mean=gone.npy"], 2, "--mean must be a mean file"),
        (["w.caffemodel", "--data=raw", "--scale=a"], 2, "--scale must be numbers"),
        (["w.caffemodel", "--data=raw", "--mean=1,2"], 3, "2 values of mean_value"),
        (["w.caffemodel", "--data=raw", "--labels=list.txt"], 3, "has 23 names, the net 7"),
        (["w.caffemodel", "--data=raw", "--output=conv"], 2, "other layers read it"),
        (["w.caffemodel", "--data=raw", "--output=what"], 2, "has no such blob"),
        (["w.caffemodel", "--data=raw", "--confusion=c.txt"], 2, "must end in .png"),
        (["w.caffemodel", "--data=raw", "--csv=no/such/r.csv"], 2, "there is no folder no/such"),
        (["w.caffemodel", "--data=few"], 3, "2 folders for the model's 7 classes"),
    ],
)
def test_mistakes_are_named(place, tokens, code, message, capsys):
    build().save("w.safetensors")
    write_deploy()
    for name in ("cat", "dog"):
        Path("few", name).mkdir(parents=True)
        cv2.imwrite(f"few/{name}/a.png", np.zeros((14, 16, 3), np.uint8))
    assert cli.main(["eval", *tokens]) == code
    assert message in capsys.readouterr().err


def test_ten_crops_need_a_crop(place, capsys):
    build("scale: 0.01")
    run_eval("w.caffemodel", "--data=raw", "--crops=10", code=2)
    assert "takes the whole image" in capsys.readouterr().err
