"""What the data layers deliver, against what Caffe's delivered from the same files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.layers import registry
from cortado.layers.base import Context
from cortado.layers.source import DataSource
from cortado.proto import caffe_pb2
from cortado.proto.files import read_net

GOLDENS = Path(__file__).parents[1] / "goldens" / "data"
CASES = sorted(GOLDENS.glob("cases/*/*.npz"))
CPU = torch.device("cpu")


@pytest.fixture
def in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the goldens' files as the working directory."""
    copy = tmp_path / "files"
    shutil.copytree(GOLDENS / "files", copy)
    monkeypatch.chdir(copy)
    return copy


def layer_of(prototxt: Path, phase: int) -> caffe_pb2.LayerParameter:
    """The one layer of a case that its phase includes."""
    layers = read_net(prototxt).message.layer
    (layer,) = (each for each in layers if not each.include or each.include[0].phase == phase)
    return layer


def build(layer: caffe_pb2.LayerParameter, phase: int) -> DataSource:
    kind = registry.find(layer.type)
    assert issubclass(kind, DataSource)
    return kind.from_message(layer, Context(num_tops=len(layer.top), phase=phase))


def tolerance(case: Path) -> float:
    """In grey levels: decoders of JPEG and OpenCV's ways to resize differ between versions."""
    if case.parent.name == "WindowData":
        return 1.0
    if case.parent.name == "ImageData" or "encoded" in case.stem:
        return 3.0
    return 0.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.stem}")
def test_batches_are_those_of_caffe(case: Path, in_files: Path) -> None:
    golden = np.load(case)
    phase = int(golden["phase"])
    layer = layer_of(case.with_suffix(".prototxt"), phase)
    source = build(layer, phase)
    if "set/data" in golden:
        source.set_data(golden["set/data"], golden["set/labels"])
    batches = json.loads(str(golden["meta"]))["batches"]
    assert batches > 0
    for number in range(batches):
        tops = source.next(CPU)
        for name, top in zip(layer.top, tops, strict=True):
            wanted = golden[f"batch{number}/{name}"]
            allowed = 1e-7 * np.abs(wanted).max()
            if name == "data":
                allowed += tolerance(case)
            assert top.dtype == torch.float32
            np.testing.assert_allclose(
                top.numpy().reshape(wanted.shape), wanted, rtol=0, atol=allowed
            )
    source.close()


def test_train_windows_and_flips_are_spread_like_those_of_caffe(in_files: Path) -> None:
    statistics = json.loads((GOLDENS / "train_crop_mirror_statistics.json").read_text())
    layer = layer_of(GOLDENS / "cases/Data/raw_train.prototxt", statistics["phase"])
    whole = build(layer, statistics["phase"])
    images = torch.cat([whole.next(CPU)[0] for _ in range(3)])[:12]
    whole.close()
    size = statistics["crop_size"]
    layer.transform_param.crop_size = size
    layer.transform_param.mirror = statistics["mirror"]
    layer.data_param.batch_size = 12
    source = build(layer, statistics["phase"])
    seen: Counter[tuple[int, int, bool]] = Counter()
    samples = statistics["samples"]
    windows = images.unfold(2, size, 1).unfold(3, size, 1)
    for _ in range(samples // 12):
        for sample, candidates in zip(source.next(CPU)[0], windows, strict=True):
            for mirrored in (False, True):
                wanted = (sample.flip(-1) if mirrored else sample)[:, None, None]
                for row, column in (candidates == wanted).all(-1).all(-1).all(0).nonzero().tolist():
                    seen[row, column, mirrored] += 1
    source.close()
    assert seen.total() == samples
    assert len(seen) == statistics["windows_seen"] == statistics["windows_possible"]
    expected = samples / len(seen)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    # 89 degrees of freedom: 99.99 % of fair samples lie below 149.
    assert chi_square < 149
    mirrored = sum(count for (_, _, flipped), count in seen.items() if flipped)
    assert mirrored / samples == pytest.approx(0.5, abs=0.05)
