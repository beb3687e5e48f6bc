"""The Data source: order, determinism, resuming, labels, and what it says about bad databases."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch

from cortado.layers.base import TEST, TRAIN, Context
from cortado.layers.data import image, lmdb_reader
from cortado.layers.data.data import Data
from cortado.layers.data.database import open_database
from cortado.layers.data.incomplete import MARKER
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.transform import Transform
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError, LayerError

CPU = torch.device("cpu")
SIZE = 12


def raw(label: int, size: int = SIZE, channels: int = 3) -> caffe_pb2.Datum:
    pixels = np.random.default_rng(label).integers(0, 256, (channels, size, size), np.uint8)
    return caffe_pb2.Datum(
        channels=channels, height=size, width=size, data=pixels.tobytes(), label=label
    )


def encoded(content: bytes, label: int = 0) -> caffe_pb2.Datum:
    return caffe_pb2.Datum(data=content, label=label, encoded=True)


def png(size: int = SIZE) -> bytes:
    return cv2.imencode(".png", np.full((size, size, 3), 7, np.uint8))[1].tobytes()


def write(path: Path, datums: list[caffe_pb2.Datum | bytes]) -> Path:
    with LmdbWriter(path) as writer:
        for number, datum in enumerate(datums):
            value = datum if isinstance(datum, bytes) else datum.SerializeToString()
            writer.put(b"%08d_image" % number, value)
    return path


def source_of(path: Path, phase: int = TRAIN, batch_size: int = 4, **transform: object) -> Data:
    return Data(open_database(path), Transform(phase, **transform), batch_size=batch_size)


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return write(tmp_path / "ten", [raw(label) for label in range(10)])


def labels_of(source: Data, batches: int) -> list[list[int]]:
    return [source.next(CPU)[1].int().tolist() for _ in range(batches)]


def test_wraps_inside_a_batch(ten: Path) -> None:
    source = source_of(ten)
    assert labels_of(source, 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    source.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_do_not_depend_on_the_number_of_threads(ten: Path, threads: int) -> None:
    one, many = (source_of(ten, crop_size=5, mirror=True) for _ in range(2))
    one.threads, many.threads = 1, threads
    for source in (one, many):
        source.seed(3)
    for _ in range(12):
        for a, b in zip(one.next(CPU), many.next(CPU), strict=True):
            assert torch.equal(a, b)
    one.close()
    many.close()


def test_epochs_and_seeds_give_other_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [raw(label) for label in range(4)])
    source = source_of(path, crop_size=5, mirror=True)
    first, second = source.next(CPU)[0], source.next(CPU)[0]
    assert not torch.equal(first, second)
    source.seed(1)
    assert not torch.equal(source.next(CPU)[0], first)
    source.close()


@pytest.mark.parametrize("delivered", [0, 1, 2, 3, 7])
def test_a_position_continues_exactly(ten: Path, delivered: int) -> None:
    source = source_of(ten, crop_size=5, mirror=True)
    source.seed(11)
    for _ in range(delivered):
        source.next(CPU)
    state = source.state_dict()
    expected = [source.next(CPU) for _ in range(4)]
    source.close()
    resumed = source_of(ten, crop_size=5, mirror=True)
    resumed.load_state_dict(state)
    for tops in expected:
        for a, b in zip(resumed.next(CPU), tops, strict=True):
            assert torch.equal(a, b)
    resumed.close()


def test_closing_keeps_the_position(ten: Path) -> None:
    source = source_of(ten)
    source.next(CPU)
    source.close()
    assert labels_of(source, 1) == [[4, 5, 6, 7]]
    source.close()


def test_a_kept_batch_is_not_overwritten(ten: Path) -> None:
    source = source_of(ten)
    kept = source.next(CPU)[0]
    copy = kept.clone()
    view = kept[1:, 0]
    del kept
    for _ in range(20):
        source.next(CPU)
    assert torch.equal(view, copy[1:, 0])
    source.close()


def test_memory_is_used_again(ten: Path) -> None:
    source = source_of(ten)
    places = {source.next(CPU)[0].data_ptr() for _ in range(60)}
    assert len(places) < 20
    source.close()


def test_two_sources_share_one_database(ten: Path) -> None:
    train, test = source_of(ten, TRAIN), source_of(ten, TEST)
    assert labels_of(train, 2) == labels_of(test, 2)
    train.close()
    test.close()


def test_the_label_top_may_be_left_out(ten: Path) -> None:
    source = Data(open_database(ten), Transform(TEST), batch_size=2, num_tops=1)
    assert source.shapes == ((2, 3, SIZE, SIZE),)
    assert len(source.next(CPU)) == 1
    source.close()


def test_rand_skip_leaves_out_fewer_records_than_it_says(ten: Path) -> None:
    starts = set()
    for seed in range(20):
        source = Data(open_database(ten), Transform(TEST), batch_size=1, rand_skip=4)
        source.seed(seed)
        starts.add(labels_of(source, 1)[0][0])
        source.close()
    assert starts == {0, 1, 2, 3}


def test_a_forgotten_source_ends_its_threads(ten: Path) -> None:
    before = threading.active_count()
    source = source_of(ten)
    source.next(CPU)
    assert threading.active_count() > before
    del source
    gc.collect()
    assert threading.active_count() == before


def test_an_unclosed_source_does_not_keep_the_interpreter(ten: Path) -> None:
    script = (
        "import sys, torch\n"
        "from cortado.layers.data.data import Data\n"
        "from cortado.layers.data.database import open_database\n"
        "from cortado.layers.data.transform import Transform\n"
        "source = Data(open_database(sys.argv[1]), Transform(0), batch_size=4)\n"
        "print(source.next(torch.device('cpu'))[1].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ten)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "[0.0, 1.0, 2.0, 3.0]\n"), done.stderr


def test_images_of_one_may_have_any_size(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [raw(0), raw(1, size=7)])
    source = source_of(path, batch_size=1)
    assert [source.next(CPU)[0].shape[-1] for _ in range(3)] == [SIZE, 7, SIZE]
    source.close()


# Bad records: the error names key, database and numbers.

JPEG = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
HUGE_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\0\xff\xff" * 2 + b"\x08\x02\0\0\0" + bytes(9)
BOTH = raw(1)
BOTH.float_data.append(1.0)
LONG = raw(1)
LONG.data += b"x"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (raw(1, size=9), ["3x9x9", "3x12x12"]),
        (raw(1, channels=1), ["1x12x12", "3x12x12"]),
        (BOTH, ["432 bytes", "1 values of float_data"]),
        (LONG, ["432", "433"]),
        (caffe_pb2.Datum(label=1), ["0x0x0"]),
        (b"\xff\xff\xff not a datum", ["no Datum"]),
        (raw(1).SerializeToString()[:-30], ["no Datum"]),
        (encoded(b""), ["empty"]),
        (encoded(b"no image at all"), ["cannot be decoded"]),
        (encoded(png()[:40]), ["decoded"]),
        (encoded(JPEG[:-40]), ["truncated"]),
        (encoded(HUGE_PNG), ["65,535x65,535", "header"]),
    ],
)
def test_a_bad_record_is_named(
    tmp_path: Path, bad: caffe_pb2.Datum | bytes, words: list[str]
) -> None:
    path = write(tmp_path / "db", [raw(0), raw(1), bad, raw(3)])
    source = source_of(path)
    with pytest.raises(DataError) as caught:
        source.next(CPU)
    for word in ["00000002_image", str(path), *words]:
        assert word in str(caught.value)
    # Asked again it says the same, and does not hang.
    with pytest.raises(DataError):
        source.next(CPU)


def test_a_bad_first_record_is_named_when_the_source_is_built(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [encoded(b"nothing")])
    with pytest.raises(DataError, match="00000000_image"):
        source_of(path)


def test_bad_records_can_be_skipped_up_to_a_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "db", [raw(0), encoded(b"?"), raw(2), raw(3)])
    source = source_of(path)
    source.max_skipped = 1
    with caplog.at_level(logging.WARNING):
        assert labels_of(source, 1) == [[0, 0, 2, 3]]
    assert "skipped 1 of at most 1" in caplog.text
    assert "00000001_image" in caplog.text
    with pytest.raises(DataError, match="00000001_image"):
        labels_of(source, 2)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    progressive = cv2.imencode(
        ".jpg", np.zeros((40, 40, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    )[1].tobytes()
    assert image.decode(progressive).shape == (40, 40, 3)
    start = progressive.index(b"\xff\xda")
    with pytest.raises(DataError, match="scans"):
        image.decode(progressive[:-2] + progressive[start:-2] * 300 + b"\xff\xd9")


def test_sixteen_bits_a_channel_are_refused() -> None:
    content = cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes()
    with pytest.raises(DataError, match="8 bits"):
        image.decode(content)


@pytest.mark.parametrize("label", [10, -2])
def test_a_label_out_of_range_is_named(tmp_path: Path, label: int) -> None:
    bad = raw(1)
    bad.label = label
    path = write(tmp_path / "db", [raw(0), bad])
    source = source_of(path, batch_size=2)
    assert labels_of(source, 1) == [[0, label]]
    source.close()
    source = source_of(path, batch_size=2)
    source.expect_labels(1, 10, frozenset())
    with pytest.raises(DataError, match=rf"00000001_image.*label {label}.*0 to 9"):
        source.next(CPU)
    source = source_of(path, batch_size=2)
    source.expect_labels(1, 10, frozenset({label}))
    assert labels_of(source, 1) == [[0, label]]
    source.close()


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    bad = raw(1)
    bad.ClearField("label")
    source = source_of(write(tmp_path / "db", [raw(0), bad]), batch_size=2)
    source.expect_labels(1, 10, frozenset())
    with pytest.raises(DataError, match=r"00000001_image.*no label"):
        source.next(CPU)


# Bad databases: refused before anything is mapped.


def test_a_truncated_file_is_refused_with_both_sizes(ten: Path) -> None:
    data = ten / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, size - 4096)
    with pytest.raises(DataError, match=f"truncated.*{size - 4096:,} bytes.*{size:,}"):
        open_database(ten)


def test_foreign_empty_and_missing_databases_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "data.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(DataError, match="no LMDB data file"):
        open_database(foreign)
    (foreign / "data.mdb").write_bytes(b"")
    with pytest.raises(DataError, match="no LMDB data file"):
        open_database(foreign)
    lmdb.open(str(tmp_path / "empty")).close()
    with pytest.raises(DataError, match="empty"):
        open_database(tmp_path / "empty")
    with pytest.raises(DataError, match="no such database"):
        open_database(tmp_path / "missing")
    with pytest.raises(DataError, match="neither"):
        open_database(tmp_path)


def test_an_unfinished_conversion_is_refused(ten: Path) -> None:
    (ten / MARKER).touch()
    with pytest.raises(DataError, match="incomplete"):
        open_database(ten)


def test_a_wrong_backend_is_recognised(ten: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        database = open_database(ten, caffe_pb2.DataParameter.LEVELDB, "data")
    assert len(database) == 10
    assert "'data'" in caplog.text
    assert "is of backend LMDB, not LEVELDB" in caplog.text


def test_reads_without_a_lock_where_none_is_allowed(
    ten: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = lmdb.open

    def refusing(path: str, **options: object) -> lmdb.Environment:
        if options["lock"]:
            raise lmdb.Error(f"{path}: Permission denied")
        return real(path, **options)

    monkeypatch.setattr(lmdb_reader.lmdb, "open", refusing)
    with caplog.at_level(logging.WARNING):
        source = source_of(ten)
    assert labels_of(source, 1) == [[0, 1, 2, 3]]
    assert caplog.text.count("without a lock") == 1
    source.close()


def message(**data_param: object) -> caffe_pb2.LayerParameter:
    layer = caffe_pb2.LayerParameter(name="data", type="Data", top=["data", "label"])
    for name, value in data_param.items():
        setattr(layer.data_param, name, value)
    return layer


def test_bad_fields_are_refused(ten: Path) -> None:
    context = Context(num_tops=2)
    for layer, field in (
        (message(batch_size=1), "data_param.source"),
        (message(source=str(ten)), "data_param.batch_size"),
    ):
        with pytest.raises(LayerError) as caught:
            Data.from_message(layer, context)
        assert caught.value.field == field


def test_crops_and_means_that_do_not_fit_are_refused_at_once(ten: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"crop_size 13.*12x12"):
        source_of(ten, crop_size=13)
    with pytest.raises(DataError, match=r"3x9x9.*3x12x12"):
        source_of(ten, mean_image=np.zeros((3, 9, 9), np.float32))
    with pytest.raises(DataError, match=r"2 values of mean_value.*3 channels"):
        source_of(ten, mean_values=[1.0, 2.0])
    layer = message(source=str(ten), batch_size=1)
    layer.transform_param.mean_file = str(tmp_path / "mean")
    layer.transform_param.mean_value.append(1.0)
    with pytest.raises(LayerError, match="both"):
        Data.from_message(layer, Context(num_tops=2))


def test_records_start_at_a_key(ten: Path) -> None:
    keys = [bytes(key) for key, _ in open_database(ten).records(b"00000007")]
    assert keys == [b"00000007_image", b"00000008_image", b"00000009_image"]
