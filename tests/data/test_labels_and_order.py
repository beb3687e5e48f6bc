"""Orders of records, labels of several kinds, balanced draws, and skipping bad records."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.layers.base import Context
from cortado.layers.data.data import Data
from cortado.layers.data.image_data import ImageData
from cortado.layers.data.labels import LabelFile, class_weights
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.order import Order, Walk, by_label
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError, LayerError

CPU = torch.device("cpu")
GOLDENS = Path(__file__).parents[1] / "goldens/data/files"


def datum(label: int = 0, labels: list[float] | None = None) -> caffe_pb2.Datum:
    pixels = bytes([label]) * 4
    return caffe_pb2.Datum(
        channels=1, height=2, width=2, data=pixels, label=label, labels=labels or []
    )


def write(path: Path, datums: list[caffe_pb2.Datum]) -> Path:
    with LmdbWriter(path) as writer:
        for number, each in enumerate(datums):
            writer.put(b"%04d" % number, each.SerializeToString())
    return path


def source_of(path: Path, batch_size: int, **data_param: object) -> Data:
    layer = caffe_pb2.LayerParameter(name="data", type="Data", top=["data", "label"])
    layer.data_param.source, layer.data_param.batch_size = str(path), batch_size
    layer.data_param.backend = caffe_pb2.DataParameter.LMDB
    for name, value in data_param.items():
        setattr(layer.data_param, name, value)
    return Data.from_message(layer, Context(num_tops=2))


def labels_of(source: Data, batches: int) -> list[list[int]]:
    found = [source.next(CPU)[1].int().tolist() for _ in range(batches)]
    source.close()
    return found


def test_each_epoch_of_a_shuffled_database_has_each_record_once(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [datum(label) for label in range(10)])
    source = source_of(path, 5, shuffle=True)
    source.seed(4)
    a, b, c, d = labels_of(source, 4)
    assert sorted(a + b) == sorted(c + d) == list(range(10))
    assert a + b != c + d
    assert a + b != list(range(10))


def test_pixels_go_with_their_labels_when_shuffled(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "db", [datum(n) for n in range(9)]), 9, shuffle=True)
    data, label = source.next(CPU)
    source.close()
    assert torch.equal(data[:, 0, 0, 0], label)


def test_balanced_draws_give_each_label_the_same_chance(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [datum(1)] + [datum(0)] * 49 + [datum(2)] * 50)
    source = source_of(path, 100, balanced=True)
    counts = Counter(label for batch in labels_of(source, 30) for label in batch)
    # 1000 expected of each, standard deviation 26.
    assert all(abs(counts[label] - 1000) < 130 for label in range(3))


def test_orders_resume_anywhere() -> None:
    groups = by_label([0, 0, 1, 0, 2, 1, 0])
    assert [each.tolist() for each in groups] == [[0, 1, 3, 6], [2, 5], [4]]
    for order in (Order(7), Order(7, shuffled=True), Order(7, groups=groups)):
        places = np.concatenate([Walk(order, 5).take(30)[0]])
        for start in range(20):
            walk = Walk(order, 5, *divmod(start, 7))
            np.testing.assert_array_equal(walk.take(10)[0], places[start : start + 10])


def test_level_databases_cannot_be_shuffled() -> None:
    with pytest.raises(LayerError, match="LMDB") as caught:
        source_of(GOLDENS / "raw_table_leveldb", 1, shuffle=True)
    assert caught.value.field == "data_param.shuffle"


def test_several_labels_become_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [datum(labels=[1, 0.5, n]) for n in range(3)])
    source = source_of(path, 3)
    assert source.shapes[1] == (3, 3)
    assert source.next(CPU)[1].tolist() == [[1, 0.5, 0], [1, 0.5, 1], [1, 0.5, 2]]
    source.close()
    mixed = write(tmp_path / "mixed", [datum(labels=[1, 2]), datum(labels=[1, 2, 3])])
    with pytest.raises(DataError, match=r"0001.*3 labels.*2 like the first"):
        source_of(mixed, 2).next(CPU)


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [datum(), datum()])
    listing = tmp_path / "labels.txt"
    listing.write_text("0001 3 4.5\r\n0000\t1,2\n")
    source = source_of(path, 2, label_file=str(listing))
    assert source.next(CPU)[1].tolist() == [[1, 2], [3, 4.5]]
    source.close()
    listing.write_text("0000 7\n")
    source = source_of(path, 2, label_file=str(listing))
    assert source.shapes[1] == (2,)
    with pytest.raises(DataError, match=r"record '0001'.*labels\.txt has no label"):
        source.next(CPU)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 1\nb x\n", r":2: must be 'KEY VALUE"),
        ("a 1\nb 1 2\n", ":2: has 2 values, the first line 1"),
        ("a 1\na 2\n", ":2: the key b'a' is there twice"),
        ("\n", "no labels"),
    ],
)
def test_bad_label_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        LabelFile(path)


def test_keys_with_spaces_end_at_a_tab(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("a b.png\t5\n")
    assert LabelFile(path).get(b"a b.png") == 5.0


def test_labels_as_one_hot_vectors(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [datum(2), datum(0)])
    layer = caffe_pb2.LayerParameter(name="data", type="Data", top=["data", "label"])
    layer.data_param.source, layer.data_param.batch_size = str(path), 2
    layer.data_param.backend = caffe_pb2.DataParameter.LMDB
    layer.transform_param.augment.num_classes = 3
    source = Data.from_message(layer, Context(num_tops=2))
    assert source.next(CPU)[1].tolist() == [[0, 0, 1], [1, 0, 0]]
    source.close()
    layer.transform_param.augment.num_classes = 2
    with pytest.raises(DataError, match=r"record '0000'.*label 2 is out of range"):
        Data.from_message(layer, Context(num_tops=2)).next(CPU)


def test_bad_records_are_skipped_by_a_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = datum(1)
    bad.data = b"x"
    source = source_of(write(tmp_path / "db", [datum(0), bad, datum(2)]), 3, max_skipped=1)
    with caplog.at_level(logging.WARNING):
        assert labels_of(source, 1) == [[0, 0, 2]]
    assert "record '0001'" in caplog.text


def test_image_lists_are_balanced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDENS)
    name = (GOLDENS / "list.txt").read_text().split(" ")[0]
    listing = tmp_path / "list.txt"
    listing.write_text(f"{name} 0\n" * 9 + f"{name} 1\n")
    layer = caffe_pb2.LayerParameter(name="data", type="ImageData", top=["data", "label"])
    parameters = layer.image_data_param
    parameters.source, parameters.root_folder = str(listing), "images/"
    parameters.batch_size, parameters.balanced, parameters.threads = 200, True, 1
    parameters.new_height = parameters.new_width = 4
    source = ImageData.from_message(layer, Context(num_tops=2))
    assert abs(float(source.next(CPU)[1].mean()) - 0.5) < 0.2
    source.close()
    assert source.records == 10


def test_class_weights_make_classes_count_the_same() -> None:
    histogram = {0: 10, 3: 30, 4: 60}
    weights = class_weights(histogram)
    assert {label: weights[label] * count for label, count in histogram.items()} == pytest.approx(
        dict.fromkeys(histogram, 100 / 3)
    )
