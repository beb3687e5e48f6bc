"""Pictures of nets and predictions, and the numbers behind them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from cortado.netdef import Net
from cortado.tools import cli
from cortado.tools.output import predictions
from cortado.tools.output.predictions import Confusion, Sample

NET = """
name: "bars"
layer { name: "images" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.00392156862745 }
  data_param { source: "db" batch_size: 4 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "scores" type: "InnerProduct" bottom: "pool" top: "scores"
  inner_product_param { num_output: 2 bias_term: false } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""


@pytest.fixture
def bars(tmp_path, monkeypatch):
    """A net that tells blue images (class 0) from red ones (class 1), and 6 images, the fourth with
    a wrong label."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    lines = []
    for index, label in enumerate([0, 1, 0, 0, 1, 0]):
        red = index in (1, 3, 4)
        pixels = np.zeros((6, 8, 3), np.uint8)
        pixels[:, 2:4, 2 if red else 0] = 255 - index
        cv2.imwrite(f"{index}.png", pixels)
        lines.append(f"{index}.png {label}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    assert cli.main(["convert_imageset", "./", "list.txt", "db"]) == 0
    net = Net("net.prototxt", "TEST")
    with torch.no_grad():
        conv, scores = net.layer("conv").layer, net.layer("scores").layer
        conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1]])[:, :, None, None])
        scores.weight.copy_(torch.eye(2) * 8)
    net.save("w.caffemodel")
    yield net
    net.close()


def test_confusion_counts_each_record_once(bars, capsys):
    assert cli.main(["show", "confusion", "net.prototxt", "w.caffemodel", "c.svg"]) == 0
    rows = capsys.readouterr().out.splitlines()
    # Of four images labelled 0 one is red; the second batch of 4 holds two records of 6 anew.
    assert rows[2].split() == ["0", "4", "1.000", "0.750", "0.857"]
    assert rows[3].split() == ["1", "2", "0.667", "1.000", "0.800"]
    assert rows[4] == "accuracy = 0.8333"


def test_scores_of_a_matrix():
    found = Confusion(torch.tensor([[3, 1], [0, 0]]))
    assert found.scores() == [(1.0, 0.75, pytest.approx(6 / 7)), (0.0, 0.0, 0.0)]
    assert found.accuracy == 0.75


def test_the_worst_come_first():
    def sample(label, share):
        return Sample(torch.zeros(1), label, torch.tensor([share, 1 - share]))

    found = predictions.worst(iter([sample(0, 0.9), sample(0, 0.4), sample(1, 0.8)]), 5)
    assert [float(each.probabilities[each.label]) for each in found] == pytest.approx([0.2, 0.4])


def test_grad_cam_looks_where_the_colour_is(bars):
    head = predictions.find_head(bars)
    image = bars.next_batch()[head.image][1]
    found = predictions.explain(bars, head, image)
    assert (found.wanted, found.layer) == (1, "conv")
    assert found.cam[:, 2:4].min() == pytest.approx(1)
    assert found.cam[:, [0, 1, 4, 5, 6, 7]].max() == 0


@pytest.mark.parametrize("kind", ["filters", "activations", "worst", "gradcam"])
def test_every_kind_is_drawn(bars, kind, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("blue\nred\n")
    more = ["--labels=labels.txt"]
    if kind in ("activations", "gradcam"):
        more.append("--image=1.png")
    if kind == "filters":
        more.append("--layer=conv")
    tokens = ["show", kind, "net.prototxt", "w.caffemodel", f"{kind}.png", *more]
    assert cli.main(tokens) == 0
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    if kind == "gradcam":
        assert "class red: 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["filter"], "unknown kind 'filter'; did you mean 'filters'"),
        (["gradcam", "--class=2"], "--class must be below 2, got 2"),
        (["gradcam", "--layer=cnv"], "has no layer 'cnv'; did you mean 'conv'"),
        (["filters", "--layer=pool"], "pool: has no filters"),
    ],
)
def test_what_is_refused(bars, tokens, message, capsys):
    kind, *more = tokens
    assert cli.main(["show", kind, "net.prototxt", "w.caffemodel", "x.png", *more]) == 2
    assert message in capsys.readouterr().err
