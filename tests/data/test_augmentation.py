"""Resizing and augmentation: what each does, and that batches depend on (seed, epoch, key) only."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.layers.base import TEST, TRAIN, Context
from cortado.layers.data.augment import Preparation, colour, rand_augment
from cortado.layers.data.augment.base import Randomness
from cortado.layers.data.augment.erasing import Erasing
from cortado.layers.data.augment.geometry import RandomResizedCrop, Resize, rotated
from cortado.layers.data.augment.mixing import Mixing
from cortado.layers.data.data import Data
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError, LayerError
from cortado.proto.text import parse

CPU = torch.device("cpu")
RECORDS = 11
EVERYTHING = """crop_size: 8 mirror: true mean_value: 100 scale: 0.1 augment {
  crop_area: 0.3 crop_area: 1 max_angle: 20 brightness: 0.3 contrast: 0.3 saturation: 0.3 hue: 0.1
  rand_augment_ops: 2 erase_probability: 0.5 mixup_alpha: 0.4 cutmix_alpha: 1 num_classes: 4 }"""


def image(height: int = 14, width: int = 18, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@functools.cache
def database() -> str:
    """Raw and encoded records of several sizes; kept for the whole run of the tests."""
    folder = tempfile.TemporaryDirectory()
    database.folder = folder  # type: ignore[attr-defined]
    path = Path(folder.name) / "db"
    with LmdbWriter(path) as writer:
        for number in range(RECORDS):
            pixels = image(14 + number % 3, 18, seed=number)
            datum = caffe_pb2.Datum(label=number % 4)
            if number % 2:
                datum.data, datum.encoded = cv2.imencode(".png", pixels)[1].tobytes(), True
            else:
                datum.height, datum.width, datum.channels = pixels.shape
                datum.data = pixels.transpose(2, 0, 1).tobytes()
            writer.put(b"%04d" % number, datum.SerializeToString())
    return str(path)


def message(transform: str, data: str = "batch_size: 4") -> caffe_pb2.LayerParameter:
    text = (
        f'name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }}'
        f'data_param {{ source: "{database()}" backend: LMDB {data} }}'
    )
    return parse(text, caffe_pb2.LayerParameter).message


def build(transform: str, data: str = "batch_size: 4", phase: int = TRAIN) -> Data:
    return Data.from_message(message(transform, data), Context(num_tops=2, phase=phase))


def batches(source: Data, count: int) -> list[tuple[bytes, ...]]:
    found = [tuple(top.numpy().tobytes() for top in source.next(CPU)) for _ in range(count)]
    source.close()
    return found


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    delivered=st.integers(0, 7),
    order=st.sampled_from(["", "shuffle: true", "balanced: true"]),
)
def test_neither_threads_nor_resuming_change_a_byte(seed: int, delivered: int, order: str) -> None:
    count = 8
    wanted: list[tuple[bytes, ...]] = []
    for threads in (1, 2, 4):
        source = build(EVERYTHING, f"batch_size: 4 threads: {threads} {order}")
        source.seed(seed)
        found = batches(source, count)
        wanted = wanted or found
        assert found == wanted
    source = build(EVERYTHING, f"batch_size: 4 {order}")
    source.seed(seed)
    batches(source, delivered)
    resumed = build(EVERYTHING, f"batch_size: 4 {order}")
    resumed.load_state_dict(source.state_dict())
    assert batches(resumed, count - delivered) == wanted[delivered:]


def test_epochs_and_seeds_change_what_comes() -> None:
    source = build("crop_size: 8 augment { crop_area: 0.2 crop_area: 1 }", f"batch_size: {RECORDS}")
    first, second = batches(source, 2)
    assert first != second
    source = build("crop_size: 8 augment { crop_area: 0.2 crop_area: 1 }", f"batch_size: {RECORDS}")
    source.seed(1)
    assert batches(source, 1)[0] != first


def test_nothing_is_augmented_in_test_unless_asked() -> None:
    plain = build("crop_size: 8", phase=TEST)
    off = build("crop_size: 8 augment { brightness: 0.5 crop_area: 0.2 crop_area: 1 }", phase=TEST)
    on = build("crop_size: 8 augment { brightness: 0.5 in_test: true }", phase=TEST)
    wanted = batches(plain, 3)
    assert batches(off, 3) == wanted
    assert batches(on, 3) != wanted


def test_resizing_is_done_in_both_phases() -> None:
    for phase in (TRAIN, TEST):
        source = build("resize_height: 6 resize_width: 9", phase=phase)
        data, _ = source.next(CPU)
        source.close()
        assert data.shape == source.shapes[0] == (4, 3, 6, 9)
        wanted = cv2.resize(image(seed=0), (9, 6)).transpose(2, 0, 1)
        np.testing.assert_array_equal(data[0].numpy(), wanted)


@pytest.mark.parametrize(
    ("size", "wanted"), [((375, 500), (256, 341)), ((500, 375), (341, 256)), ((10, 10), (256, 256))]
)
def test_the_shorter_side_is_resized(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert Resize(side=256).size(*size) == wanted


def test_random_resized_crops_keep_within_their_limits() -> None:
    crop = RandomResizedCrop(5, (0.25, 0.5), (0.8, 1.25))
    found = [crop._window(100, 120, Randomness(start)) for start in range(200)]
    for top, left, height, width in found:
        assert top >= 0
        assert left >= 0
        assert top + height <= 100
        assert left + width <= 120
        assert 0.24 < height * width / 12_000 < 0.51
        assert 0.78 < width / height < 1.28
    assert len(set(found)) > 190
    # Where no ratio fits, the centre is taken.
    assert crop._window(100, 5, Randomness(0)) == (47, 0, 6, 5)


def test_colour_operations_agree_with_their_formulas() -> None:
    pixels = image(40, 40)
    grey = pixels.astype(np.float32) @ np.array([0.114, 0.587, 0.299], np.float32)
    for factor in (0.0, 0.4, 1.0, 1.7):
        for change, centre in (
            (colour.brightened, 0.0),
            (colour.contrasted, cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).mean()),
            (colour.saturated, grey[:, :, None]),
        ):
            wanted = np.clip(pixels * factor + (1 - factor) * centre, 0, 255)
            assert np.abs(change(pixels, factor) - wanted).max() <= 1.0
    # Three shifts of a third of the circle end where they began, up to the coding of hues.
    turned = pixels
    for _ in range(3):
        turned = colour.hue_shifted(turned, 1 / 3)
    assert np.abs(turned.astype(int) - pixels).mean() < 3


def test_a_rotation_turns_counter_clockwise() -> None:
    pixels = image(9, 9)
    np.testing.assert_array_equal(rotated(pixels, 90.0), np.rot90(pixels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", range(len(rand_augment.OPERATIONS)))
def test_every_operation_keeps_type_and_shape(number: int, channels: int) -> None:
    pixels = image(15, 11, channels)
    copy = pixels.copy()
    change, two_sided = rand_augment.OPERATIONS[number]
    for strength in (0.0, 0.5, 1.0, *((-0.7,) if two_sided else ())):
        changed = change(pixels, strength)
        assert changed.dtype == np.uint8
        assert changed.shape == pixels.shape
    np.testing.assert_array_equal(pixels, copy)
    if number < 12:
        # All but autocontrast and equalize have no effect at strength 0.
        np.testing.assert_array_equal(change(pixels, 0.0), pixels)


def test_erasing_stays_in_its_region() -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    erase = Erasing(1.0, (0.1, 0.3))
    for start in range(50):
        changed = erase(pixels, (5, 10, 20, 25), Randomness(start)).any(axis=2)
        assert 0.05 < changed[5:25, 10:35].mean() < 0.35
        changed[5:25, 10:35] = False
        assert not changed.any()
    assert not pixels.any()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0)])
def test_images_and_labels_are_mixed_in_the_same_shares(mixup: float, cutmix: float) -> None:
    images = torch.eye(6).reshape(6, 6, 1, 1).expand(6, 6, 12, 12).contiguous()
    for index in range(20):
        mixed, labels = Mixing(mixup, cutmix)(images, torch.eye(6), 3, 0, index)
        # The mean of channel c is the share of image c.
        torch.testing.assert_close(mixed.mean(dim=(2, 3)), labels)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ("resize_height: 5", "transform_param.resize_width"),
        ("resize_side: 5 resize_height: 5 resize_width: 5", "transform_param.resize_side"),
        ("augment { crop_area: 0.5 crop_area: 1 }", "transform_param.augment.crop_area"),
        ("crop_size: 8 augment { crop_area: 0.5 }", "transform_param.augment.crop_area"),
        ("augment { erase_probability: 1.5 }", "transform_param.augment.erase_probability"),
        ("augment { brightness: -1 }", "transform_param.augment.brightness"),
        ("augment { hue: 0.6 }", "transform_param.augment.hue"),
        ("augment { mixup_alpha: 1 }", "transform_param.augment.num_classes"),
    ],
)
def test_bad_fields_are_refused(fields: str, field: str) -> None:
    for phase in (TRAIN, TEST):
        transform = parse(fields, caffe_pb2.TransformationParameter).message
        if phase == TEST and field.endswith("area"):
            continue  # not read there
        with pytest.raises(LayerError) as caught:
            Preparation.from_message(transform, phase)
        assert caught.value.field == field


def test_values_that_are_no_bytes_are_refused(tmp_path: Path) -> None:
    datum = caffe_pb2.Datum(channels=1, height=2, width=2, float_data=[1, 2, 3, 4])
    with LmdbWriter(tmp_path / "db") as writer:
        writer.put(b"a", datum.SerializeToString())
    layer = message("resize_side: 4", "batch_size: 1")
    layer.data_param.source = str(tmp_path / "db")
    source = Data.from_message(layer, Context(num_tops=2))
    with pytest.raises(DataError, match=r"record 'a'.*float_data"):
        source.next(CPU)
