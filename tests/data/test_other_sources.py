"""Input, DummyData, HDF5Data, ImageData, MemoryData and WindowData beyond the goldens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from cortado.layers import registry
from cortado.layers.base import TRAIN, Context
from cortado.layers.source import DataSource, NumberedSource
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError, LayerError
from cortado.proto.text import parse

CPU = torch.device("cpu")


def build(text: str, phase: int = TRAIN) -> DataSource:
    message = parse(text, caffe_pb2.LayerParameter).message
    kind = registry.find(message.type)
    assert issubclass(kind, DataSource)
    return kind.from_message(message, Context(num_tops=len(message.top), phase=phase))


def deliver(source: DataSource, batches: int) -> None:
    for _ in range(batches):
        source.next(CPU)


def hdf5(folder: Path) -> str:
    for name, start in (("a.h5", 0), ("b.h5", 5)):
        with h5py.File(folder / name, "w") as file:
            file["data"] = np.arange(start, start + 5)
    (folder / "list.txt").write_text(f"{folder}/a.h5\n{folder}/b.h5\n")
    return (
        'type: "HDF5Data" name: "h" top: "data" hdf5_data_param '
        f'{{ source: "{folder}/list.txt" batch_size: 4 shuffle: true }}'
    )


def image_list(folder: Path) -> str:
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((6, 6, 3), number, np.uint8))
    (folder / "list.txt").write_text("".join(f"{each}.png {each}\n" for each in range(5)))
    return (
        'type: "ImageData" name: "i" top: "data" top: "label" transform_param { crop_size: 4 } '
        f'image_data_param {{ source: "{folder}/list.txt" root_folder: "{folder}/" '
        "batch_size: 3 shuffle: true }"
    )


def dummy(folder: Path) -> str:
    return (
        'type: "DummyData" name: "d" top: "x" dummy_data_param '
        '{ shape { dim: 3 dim: 2 } data_filler { type: "gaussian" } }'
    )


def windows(folder: Path) -> str:
    generator = np.random.default_rng(0)
    cv2.imwrite(str(folder / "w.png"), generator.integers(0, 256, (20, 20, 3), np.uint8))
    boxes = [f"1 0.9 {each} 0 {each + 9} 12\n2 0.1 0 {each} 8 {each + 8}\n" for each in range(8)]
    (folder / "w.txt").write_text(f"# 0\n{folder}/w.png\n3\n20\n20\n16\n{''.join(boxes)}")
    return (
        'type: "WindowData" name: "w" top: "data" top: "label" '
        "transform_param { crop_size: 7 mirror: true } "
        f'window_data_param {{ source: "{folder}/w.txt" batch_size: 4 fg_fraction: 0.5 }}'
    )


RANDOM = [hdf5, image_list, dummy, windows]


@pytest.mark.parametrize("text", RANDOM)
def test_random_sources_repeat_and_resume_exactly(
    text: Callable[[Path], str], tmp_path: Path
) -> None:
    declared = text(tmp_path)
    whole = build(declared)
    whole.seed(5)
    batches, states = [], []
    for _ in range(8):
        states.append(whole.state_dict())
        batches.append(whole.next(CPU))
    whole.close()
    assert not all(torch.equal(batch[0], batches[0][0]) for batch in batches)
    for start in (0, 1, 3, 6):
        again = build(declared)
        again.seed(5)
        again.load_state_dict(states[start])
        for batch in batches[start:]:
            for a, b in zip(again.next(CPU), batch, strict=True):
                assert torch.equal(a, b)
        again.close()


@pytest.mark.parametrize("text", RANDOM)
def test_seeds_make_a_difference(text: Callable[[Path], str], tmp_path: Path) -> None:
    declared = text(tmp_path)
    first, second = build(declared), build(declared)
    first.seed(1)
    second.seed(2)
    pairs = [(first.next(CPU)[0], second.next(CPU)[0]) for _ in range(4)]
    first.close()
    second.close()
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_shuffled_epochs_hold_every_record_once(tmp_path: Path) -> None:
    source = build(hdf5(tmp_path))
    values = torch.cat([source.next(CPU)[0] for _ in range(5)]).tolist()
    assert sorted(values[:10]) == sorted(values[10:]) == list(range(10))
    assert values[:10] != values[10:]
    source.close()


def test_constants_are_filled_once_and_others_each_time() -> None:
    source = build(
        'type: "DummyData" top: "a" top: "b" dummy_data_param { shape { dim: 4 } '
        'data_filler { value: 2 } data_filler { type: "uniform" } }'
    )
    (a, b), (again, other) = source.next(CPU), source.next(CPU)
    assert a is again
    assert a.tolist() == [2.0] * 4
    assert not torch.equal(b, other)


def test_dummy_data_leaves_the_global_generator_alone() -> None:
    source = build(dummy(Path()))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    source.next(CPU)
    assert torch.equal(torch.rand(3), expected)


def test_input_states_shapes_and_delivers_nothing() -> None:
    source = build('type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } }')
    assert source.shapes == ((2, 3), (2, 3))
    assert not source.delivers
    with pytest.raises(LookupError):
        source.next(CPU)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('type: "Input" top: "a"', "input_param.shape"),
        ('type: "Input" top: "a" input_param { shape { dim: 0 } }', "input_param.shape.0.dim"),
        (
            'type: "Input" top: "a" input_param { shape { dim: 99999 dim: 99999 } }',
            "input_param.shape.0.dim",
        ),
        (
            'type: "DummyData" top: "a" dummy_data_param { num: 1 shape { dim: 1 } }',
            "dummy_data_param.shape",
        ),
        ('type: "DummyData" top: "a" dummy_data_param { num: 1 }', "dummy_data_param.channels"),
        (
            'type: "ImageData" top: "a" top: "b" image_data_param { source: "x" new_width: 3 }',
            "image_data_param.new_height",
        ),
        (
            'type: "HDF5Data" top: "a" transform_param { } hdf5_data_param { source: "x" }',
            "transform_param",
        ),
        (
            'type: "MemoryData" top: "a" top: "b" memory_data_param { batch_size: 1 }',
            "memory_data_param.channels",
        ),
        (
            'type: "WindowData" top: "a" top: "b" transform_param { crop_size: 6 } '
            "window_data_param { context_pad: 3 }",
            "window_data_param.context_pad",
        ),
    ],
)
def test_fields_that_cannot_work_are_named(text: str, field: str) -> None:
    with pytest.raises(LayerError) as caught:
        build(text)
    assert caught.value.field == field


def test_a_missing_image_is_named_with_its_line(tmp_path: Path) -> None:
    declared = image_list(tmp_path)
    (tmp_path / "3.png").unlink()
    source = build(declared)
    with pytest.raises(DataError, match=r"list\.txt:4: .*3\.png"):
        deliver(source, 2)


def test_bad_hdf5_files_are_named(tmp_path: Path) -> None:
    declared = hdf5(tmp_path)
    with pytest.raises(DataError, match=r"a\.h5.*'other'.*data"):
        build(declared.replace('top: "data"', 'top: "other"'))
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    source = build(declared.replace("shuffle: true", ""))
    source.next(CPU)
    with pytest.raises(DataError, match=r"b\.h5.*cannot be read as HDF5"):
        source.next(CPU)


def test_memory_data_checks_what_it_is_given() -> None:
    source = build(
        'type: "MemoryData" top: "a" top: "b" memory_data_param '
        "{ batch_size: 2 channels: 1 height: 2 width: 2 }"
    )
    with pytest.raises(DataError, match="set_data"):
        source.next(CPU)
    with pytest.raises(DataError, match="multiple of the batch size 2, got 3"):
        source.set_data(np.zeros((3, 1, 2, 2)), np.zeros(3))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"\[1, 1, 2, 9\]"):
        source.set_data(np.zeros((1, 1, 2, 9)), np.zeros(1))  # type: ignore[attr-defined]


def test_window_files_are_checked(tmp_path: Path) -> None:
    declared = windows(tmp_path)
    text = (tmp_path / "w.txt").read_text()
    (tmp_path / "w.txt").write_text(text[:-20])
    with pytest.raises(DataError, match=r"w\.txt:\d+"):
        build(declared)
    (tmp_path / "w.txt").write_text(text.replace(" 9 12\n", " 99 12\n").replace("0.9", "0.95", 1))
    source = build(declared)
    with pytest.raises(DataError, match=r"outside the image of 20x20"):
        deliver(source, 200)


def test_keys_of_hdf5_rows_are_those_of_the_files(tmp_path: Path) -> None:
    """Row r of b.h5 holds 5 + r, whatever the order in which rows are read."""
    source = build(hdf5(tmp_path))
    for _ in range(5):
        (values,) = source.next(CPU)
        places = [value % 5 for value in values.int().tolist()]
        files = ["b.h5" if value >= 5 else "a.h5" for value in values.tolist()]
        assert source.last_keys == tuple(
            f"{tmp_path}/{file}:{place}" for file, place in zip(files, places, strict=True)
        )


def test_keys_of_memory_data_are_places_in_the_arrays() -> None:
    source = build(
        'type: "MemoryData" top: "a" top: "b" memory_data_param '
        "{ batch_size: 2 channels: 1 height: 1 width: 1 }"
    )
    source.set_data(np.arange(4.0).reshape(4, 1, 1, 1), np.zeros(4))  # type: ignore[attr-defined]
    seen = []
    for _ in range(3):
        values, _ = source.next(CPU)
        assert source.last_keys == tuple(str(int(value)) for value in values.flatten())
        seen += source.last_keys
    assert seen == ["0", "1", "2", "3", "0", "1"]


def test_keys_of_windows_are_image_and_corners(tmp_path: Path) -> None:
    source = build(windows(tmp_path))
    _, labels = source.next(CPU)
    assert len(source.last_keys) == 4
    for key, label in zip(source.last_keys, labels.tolist(), strict=True):
        assert key.startswith(f"{tmp_path}/w.png (")
        left, _, right, _ = map(int, re.findall(r"\d+", key.rpartition("w.png")[2]))
        assert right - left == (9 if label else 8)  # foreground windows are wider
    source.close()


def test_made_up_values_have_no_keys(tmp_path: Path) -> None:
    source = build(dummy(tmp_path))
    source.next(CPU)
    assert source.last_keys == ()


def test_hdf5_rows_are_numbered_through_the_files(tmp_path: Path) -> None:
    """Row r of a.h5 holds r, that of b.h5 5 + r: its number."""
    declared = hdf5(tmp_path)
    read, told = build(declared), build(declared)
    assert isinstance(told, NumberedSource)
    for _ in range(6):
        (values,) = read.next(CPU)
        epochs, places = told.advance()
        assert places.tolist() == values.tolist()
        assert told.last_keys == read.last_keys
        assert told.state_dict() == read.state_dict()
    assert epochs.tolist() == [2, 2, 2, 2]
    before = told.state_dict()
    swept = [top.tolist() for (top,) in told.sweep(CPU)]
    assert swept == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert told.state_dict() == before


def test_hdf5_files_that_lost_rows_are_named(tmp_path: Path) -> None:
    declared = hdf5(tmp_path).replace("shuffle: true", "")
    source = build(declared)
    source.next(CPU)
    for name, rows in (("a.h5", 3), ("b.h5", 0)):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = np.arange(rows)
    again = build(declared)
    again.load_state_dict(source.state_dict())
    with pytest.raises(DataError, match=r"a\.h5: has 3 rows; .* had come to row 4"):
        again.next(CPU)
    with pytest.raises(DataError, match=r"b\.h5: the datasets have no rows"):
        build(declared).next(CPU)
