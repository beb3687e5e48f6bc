"""How images were prepared, as text, in one line, and held against one another."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cortado.proto.caffe_pb2 import Preprocessing
from cortado.proto.errors import SnapshotError
from cortado.proto.preprocessing import contradictions, from_json, summary, to_json


def record(**fields: object) -> Preprocessing:
    shape = {"channels": 3, "height": 12, "width": 12, "channel_order": "BGR"}
    return Preprocessing(blob="data", **(shape | fields))  # type: ignore[arg-type]


def with_mean_image() -> Preprocessing:
    found = record(scale=0.1)
    values = np.random.default_rng(0).random((3, 4, 5), np.float32) * 255
    found.mean_image.shape.dim.extend(values.shape)
    found.mean_image.data.extend(values.ravel().tolist())
    return found


def test_text_gives_the_same_record_back() -> None:
    records = [
        record(mean_value=[104, 117.3, 1 / 3], crop_size=12, resize_side=14),
        record(scale_value=[0.017, 0.018, 0.019], image_height=16, image_width=20),
        with_mean_image(),
        Preprocessing(),
    ]
    text = to_json(records)
    assert from_json(text, "w.safetensors") == records
    assert json.loads(text)[0]["resize_side"] == 14  # others can read it too


@pytest.mark.parametrize(
    "text",
    [
        "", "{}x", "3", "[3]", '[{"unknown": 1}]', '[{"mean_image": {"shape": [1]}}]',
        '[{"mean_image": {"shape": [1], "float32": "%%%%"}}]', '[{"channels": "many"}]',
    ],
)  # fmt: skip
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(SnapshotError, match=r"w\.pth: its cortado\.preprocessing cannot be read"):
        from_json(text, "w.pth")


def test_summary_says_everything_in_one_line() -> None:
    found = record(mean_value=[104, 117, 123], crop_size=12, resize_side=14)
    assert summary(found) == (
        "3x12x12 BGR, resized to 14 (shorter side), crop 12, mean 104, 117, 123, scale 1"
    )
    assert "resized to 14x16, mean 0, scale 0.5" in summary(
        record(resize_height=14, resize_width=16, scale_value=[0.5] * 3)
    )
    assert "of images of 16x20" in summary(record(image_height=16, image_width=20))
    assert "mean an image of 3x4x5" in summary(with_mean_image())


def test_contradictions_are_named() -> None:
    first = record(mean_value=[104, 117, 123], resize_side=14)
    second = record(channel_order="RGB", height=10, resize_height=9, resize_width=9, scale=0.5)
    assert contradictions(first, second) == [
        ("channel order", "BGR", "RGB"),
        ("input", "3x12x12", "3x10x12"),
        ("resize", "14 (shorter side)", "9x9"),
        ("mean", "104, 117, 123", "0"),
        ("scale", "1", "0.5"),
    ]
    assert contradictions(first, first) == []
    assert contradictions(with_mean_image(), with_mean_image()) == []
    assert [what for what, *_ in contradictions(with_mean_image(), record(scale=0.1))] == ["mean"]


def test_the_same_said_otherwise_is_no_contradiction() -> None:
    assert contradictions(record(mean_value=[7]), record(mean_value=[7, 7, 7])) == []
    assert contradictions(record(), record(mean_value=[0], scale_value=[1, 1, 1])) == []
    # What only one of them states does not count.
    assert contradictions(record(resize_side=14), record(crop_size=12)) == []
