"""From folders of images to a tested classifier, without writing a prototxt."""

from __future__ import annotations

import contextlib
import re

import cv2
import numpy as np
import pytest

from cortado.netdef import blueprint
from cortado.proto.files import read_net
from cortado.tools import cli


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two classes of 10 images: dark and bright ones."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 20)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = rng.integers(level, level + 40, (20, 24, 3)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / name / f"{index}.png"), pixels)
    return tmp_path


def test_three_commands_from_images_to_a_tested_classifier(images, capsys):
    tokens = ["new", "light", "--images", "photos", "--size", "16", "--batch", "8", "--epochs=6"]
    assert cli.main(tokens) == 0
    out = capsys.readouterr().out
    assert "16 images to learn, 4 to test, 2 classes" in out
    assert "bright 10, dark 10" in out
    readme = (images / "light" / "README.md").read_text()
    commands = [line.split()[1:] for line in readme.splitlines() if line.startswith("    cortado")]
    with contextlib.chdir("light"):
        assert (images / "light" / "labels.txt").read_text() == "bright\ndark\n"
        check, train, test = commands[:3]
        assert cli.main(check) == 0
        assert "warning" not in capsys.readouterr().err
        assert cli.main(train) == 0
        capsys.readouterr()
        assert cli.main(test) == 0
        accuracy = re.search(r"\] accuracy = (\S+)", capsys.readouterr().err)
        assert accuracy
        assert float(accuracy[1]) == 1
        assert [layer.type for layer in read_net("deploy.prototxt").message.layer][:1] == ["Input"]


def test_a_model_of_the_zoo_is_fitted_to_the_classes(images):
    tokens = ["new", "light", "--images", "photos", "--model", "resnet18", "--fine-tune"]
    assert cli.main([*tokens, "--batch=2"]) == 0
    with contextlib.chdir("light"):
        assert 'weights: "zoo:resnet18"' in (images / "light" / "solver.prototxt").read_text()
        plan = blueprint.draw("train_val.prototxt", "TRAIN")
        assert plan.blob_shapes["data"] == (2, 3, 224, 224)
        last = next(step for step in plan.steps if step.name.endswith("_light"))
        assert last.top_shapes == ((2, 2),)
        assert [spec.lr_mult for spec in last.spec.message.param] == [10, 20]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["light"], "--images DIR is needed"),
        (["a b", "--images=photos"], "NAME must be letters"),
        (["photos", "--images=photos"], "photos: exists already"),
        (["light", "--images=photos", "--fine_tune"], "--fine_tune needs --model"),
        (["light", "--images=photos", "--model=resnet8"], "resnet18"),
    ],
)
def test_what_is_refused(images, tokens, message, capsys):
    assert cli.main(["new", *tokens]) == 2
    assert message in capsys.readouterr().err
    assert not (images / "light").exists()


def test_images_that_cannot_be_read_leave_no_folder(images, capsys):
    for path in (images / "photos").rglob("*.png"):
        path.write_bytes(b"damaged")
    assert cli.main(["new", "light", "--images=photos"]) == 3
    assert "none of the" in capsys.readouterr().err
    assert not (images / "light").exists()
