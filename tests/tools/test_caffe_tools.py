"""The smaller programs of Caffe, as subcommands."""

from __future__ import annotations

import csv
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import h5py
import numpy as np
import pytest
import torch

from cortado.netdef import Net
from cortado.proto.caffe_pb2 import NetParameter, SolverParameter, V1LayerParameter
from cortado.proto.files import read_message, read_net, read_prototxt, write_message
from cortado.tools import cli

OLD_NET = """
name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
layers { name: "relu" type: RELU bottom: "data" top: "data" }
"""


# -- upgrades --------------------------------------------------------------------------------------


def test_upgrade_of_text(tmp_path, capsys):
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    old.write_text(OLD_NET)
    assert cli.main(["upgrade_net_proto_text", str(old), str(new)]) == 0
    net = read_prototxt(new, NetParameter).message
    assert [layer.type for layer in net.layer] == ["Input", "ReLU"]
    again = tmp_path / "again.prototxt"
    assert cli.main(["upgrade_net_proto_text", str(new), str(again)]) == 0
    assert "already in latest proto format" in capsys.readouterr().err
    assert read_net(again).message == net


def test_upgrade_of_binary_keeps_blobs(tmp_path):
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    net = NetParameter(name="n")
    layer = net.layers.add(name="ip", type=V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    write_message(old, net)
    assert cli.main(["upgrade_net_proto_binary", str(old), str(new)]) == 0
    (upgraded,) = read_message(new, NetParameter).layer
    assert (upgraded.type, list(upgraded.blobs[0].data)) == ("InnerProduct", [1, 2])


def test_upgrade_of_a_solver(tmp_path):
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    old.write_text("solver_type: ADAM base_lr: 0.5")
    assert cli.main(["upgrade_solver_proto_text", str(old), str(new)]) == 0
    solver = read_prototxt(new, SolverParameter).message
    assert (solver.type, solver.HasField("solver_type")) == ("Adam", False)


@pytest.mark.parametrize("kind", ["net_proto_text", "net_proto_binary", "solver_proto_text"])
def test_exit_codes_of_upgrades(kind, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.write_text("nonsense {{{")
    out = tmp_path / "out"
    assert cli.main([f"upgrade_{kind}", str(broken)]) == 1
    assert "Usage: cortado" in capsys.readouterr().err
    assert cli.main([f"upgrade_{kind}", str(broken), str(out)]) == 2
    assert not out.exists()


def test_an_incomplete_upgrade_is_written_with_exit_code_1(tmp_path, capsys):
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    # A V0 layer with a field that its type has not in the new format.
    old.write_text(
        'layers { layer { name: "r" type: "relu" batchsize: 3 } bottom: "data" top: "data" }'
    )
    assert cli.main(["upgrade_net_proto_text", str(old), str(new)]) == 1
    assert new.exists()
    assert "Encountered error(s)" in capsys.readouterr().err


# -- text ------------------------------------------------------------------------------------------


def test_summarize_names_rates_and_sizes(folder, capsys):
    net = (folder / "net.prototxt").read_text()
    net = net.replace("kernel_size: 3 w", "kernel_size: 3 stride: 2 pad: 1 group: 1 w")
    net = net.replace('top: "conv"\n  c', 'top: "conv"\n  param { name: "k" lr_mult: 2 }\n  c', 1)
    (folder / "net.prototxt").write_text(net)
    assert cli.main(["summarize", "net.prototxt", "-w", "20"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == [
        "data", "conv", "relu", "score", "accuracy", "loss",
    ]  # fmt: skip
    assert rows[1].split() == [
        "conv",
        "Convolution",
        "(k",
        "x2)",
        "data",
        "->",
        "conv",
        "3/2+1",
        "4",
    ]
    arrows = {row.index("->") for row in rows}
    assert len(arrows) == 1


def test_parse_log_writes_the_tables_of_a_run(folder):
    cli.main(["train", "--solver=solver.prototxt", "--log_file=run.log"])
    (folder / "out").mkdir()
    assert cli.main(["parse_log", "run.log", "out", "--delimiter=;"]) == 0
    with open("out/run.log.train", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert list(rows[0]) == ["NumIters", "Seconds", "LearningRate", "loss"]
    assert [float(row["NumIters"]) for row in rows] == [0, 2, 4, 6]
    assert {row["LearningRate"] for row in rows} == {"0.01"}
    seconds = [float(row["Seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    with open("out/run.log.test", newline="") as file:
        tests = list(csv.DictReader(file, delimiter=";"))
    assert [float(row["NumIters"]) for row in tests] == [0, 4, 8]
    assert "accuracy" in tests[0]


def test_extract_seconds(folder):
    cli.main(["train", "--solver=solver.prototxt", "--log_file=run.log"])
    assert cli.main(["extract_seconds", "run.log", "seconds.txt"]) == 0
    log = (folder / "run.log").read_text().splitlines()
    seconds = [float(line) for line in (folder / "seconds.txt").read_text().split()]
    assert len(seconds) == sum("Iteration" in line for line in log)
    assert 0 <= seconds[0] <= seconds[-1] < 60


def test_seconds_across_new_year():
    from cortado.tools.output.curves import parse

    lines = [
        "I1231 23:59:59.500000     1 solver.py:1] Solving n",
        "I0101 00:00:00.500000     1 solver.py:1] Iteration 5, lr = 0.1",
    ]
    assert parse(lines).series["lr"].seconds == [1.0]


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["opencv", "pil"])
def test_resize_and_crop(tmp_path, library, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "n01").mkdir(parents=True)
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255  # the middle square is white
    cv2.imwrite(str(source / "n01" / "wide.jpg"), image)
    (source / "broken.jpg").write_bytes(b"no image")
    tokens = ["resize_and_crop_images", f"--input_folder={source}", f"--output_folder={target}"]
    assert cli.main([*tokens, "--output_side_length=16", f"--image_lib={library}"]) == 0
    out = cv2.imread(str(target / "n01" / "wide.jpg"))
    assert out.shape == (16, 16, 3)
    assert out[:, 2:-2].min() > 200
    assert not (target / "broken.jpg").exists()
    assert "broken.jpg: is no image that can be read, left out" in capsys.readouterr().err


@pytest.fixture
def image_net(tmp_path):
    """A deploy net of 3x6x6 images and three classes, with weights, and an image."""
    net = tmp_path / "deploy.prototxt"
    net.write_text("""
    layer { name: "data" type: "Input" top: "data"
      input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } } }
    layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
    """)
    torch.manual_seed(1)
    built = Net(net, "TEST")
    weights = tmp_path / "w.caffemodel"
    built.save(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    return built, pixels, [f"--model_def={net}", f"--pretrained_model={weights}"]


def test_classify_prepares_the_image_as_caffe_does(image_net, tmp_path, capsys):
    net, pixels, flags = image_net
    mean = np.array([10.0, 20.0, 30.0], np.float32)
    np.save(tmp_path / "mean.npy", mean)
    out = tmp_path / "out.npy"
    flags += ["--images_dim=8,8", "--center_only", f"--mean_file={tmp_path / 'mean.npy'}"]
    assert cli.main(["classify", str(tmp_path / "image.png"), str(out), *flags]) == 0
    assert "Classifying 1 inputs." in capsys.readouterr().out
    # OpenCV's pixels are BGR already; the mean is taken off after the swap.
    prepared = pixels[1:7, 1:7].transpose(2, 0, 1).astype(np.float32) - mean[:, None, None]
    with torch.no_grad():
        expected = net(data=torch.from_numpy(np.stack([prepared, prepared])))["prob"][:1]
    np.testing.assert_allclose(np.load(out), expected.numpy(), rtol=1e-4)


def test_classify_a_folder_by_ten_crops(image_net, tmp_path):
    _, _, flags = image_net
    out = tmp_path / "out.npy"
    tokens = ["classify", str(tmp_path), str(out), "--ext=png", "--images_dim=8,8", "--mean_file="]
    assert cli.main([*tokens, *flags]) == 0
    scores = np.load(out)
    assert scores.shape == (1, 3)
    assert scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("tokens", "code", "message"),
    [
        (["nothing.png"], 3, "nothing.png"),
        (["image.png", "--images_dim=8"], 2, "must be height,width"),
        (["image.png", "--pretrained_model=none"], 2, "there is no file 'none'"),
        (["image.png", "--mean_file=none.npy"], 3, "none.npy"),
        (["image.png", "--mean_file=", "--channel_swap=0,1"], 2, "Channel swap"),
    ],
)
def test_classify_names_what_is_wrong(
    image_net, tmp_path, monkeypatch, tokens, code, message, capsys
):
    _, _, flags = image_net
    monkeypatch.chdir(tmp_path)
    source, *rest = tokens
    rest = rest if any("mean" in flag for flag in rest) else [*rest, "--mean_file="]
    assert cli.main(["classify", source, "out.npy", *flags, *rest]) == code
    assert message in capsys.readouterr().err


def test_detect_scores_listed_windows(image_net, tmp_path):
    _, _, flags = image_net
    windows = tmp_path / "windows.csv"
    image = tmp_path / "image.png"
    windows.write_text(f"filename, xmin, ymin, xmax, ymax\n{image},0,0,6,6\n{image},1,2,7,8\n")
    flags += ["--mean_file=", "--context_pad=0"]
    for name in ("out.csv", "out.h5"):
        tokens = ["detect", str(windows), str(tmp_path / name), "--crop_mode=list"]
        assert cli.main([*tokens, *flags]) == 0
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ymin"] for row in rows] == ["0", "2"]
    scores = [[float(row[f"class{i}"]) for i in range(3)] for row in rows]
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file["prediction"][:], scores, rtol=1e-4)
        assert file["window"][1].tolist() == [2, 1, 8, 7]


def test_detect_proposes_windows_and_says_how(image_net, tmp_path, capsys):
    _, _, flags = image_net
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'image.png'}\n")
    tokens = ["detect", str(tmp_path / "list.txt"), str(tmp_path / "out.csv"), "--mean_file="]
    assert cli.main([*tokens, *flags]) == 2
    assert "less than half the net's input of 6 pixels, got 16" in capsys.readouterr().err
    assert cli.main([*tokens, *flags, "--context_pad=1"]) == 0
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert len(rows) > 10
    if not hasattr(cv2, "ximgproc"):
        assert "no Selective Search" in capsys.readouterr().err


# -- downloads -------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """An address at which a file of 100,000 bytes is served, and the file."""
    content = bytes(range(250)) * 400

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/files/remote.caffemodel", content
    http.shutdown()
    thread.join()
    http.server_close()


def write_readme(folder, url, sha1):
    facts = f"name: Model\ncaffemodel: w.caffemodel\ncaffemodel_url: {url}\nsha1: {sha1}"
    (folder / "readme.md").write_text(f"---\n{facts}\n---\n\ntext\n")


def test_download_of_a_model(tmp_path, server, capsys):
    url, content = server
    write_readme(tmp_path, url, hashlib.sha1(content, usedforsecurity=False).hexdigest())
    assert cli.main(["download_model_binary", str(tmp_path)]) == 0
    assert (tmp_path / "w.caffemodel").read_bytes() == content
    capsys.readouterr()
    assert cli.main(["download_model_binary", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Model already exists.\n"


def test_a_download_that_is_not_what_was_published(tmp_path, server, capsys):
    url, _ = server
    write_readme(tmp_path, url, "0" * 40)
    assert cli.main(["download_model_binary", str(tmp_path)]) == 4
    assert "sha1 is" in capsys.readouterr().err
    assert not (tmp_path / "w.caffemodel").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no rules", "between two lines of ---"),
        ("---\ncaffemodel: w\n---\n", "lacks caffemodel_url, sha1"),
        ("---\na: [\n---\n", "is no YAML"),
        ("---\ncaffemodel: ../w\ncaffemodel_url: u\nsha1: ab\n---\n", "must be a file name"),
    ],
)
def test_readmes_that_do_not_say_enough(tmp_path, text, message, capsys):
    (tmp_path / "readme.md").write_text(text)
    assert cli.main(["download_model_binary", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
