"""convert_imageset and compute_image_mean: Caffe's bytes, and what they say about bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from cortado.layers.data import lmdb_writer
from cortado.layers.data.conversion import Options, convert, list_folders, split
from cortado.layers.data.database import open_any, open_database
from cortado.layers.data.incomplete import MARKER
from cortado.layers.data.leveldb_writer import LevelWriter
from cortado.layers.data.lists import ListedImage, read_image_list
from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.mean import compute_mean, write_mean
from cortado.layers.data.transform import read_mean
from cortado.proto.errors import ConfigError, DataError
from cortado.tools import cli

FILES = Path(__file__).parents[1] / "goldens/data/files"
COMMANDS = {
    "raw_lmdb": Options(),
    "raw_resized_lmdb": Options(resize_height=13, resize_width=17),
    "gray_lmdb": Options(gray=True),
    "encoded_lmdb": Options(encoded=True),
    "encoded_png_resized_lmdb": Options(
        encoded=True, encode_type="png", resize_height=16, resize_width=16
    ),
    "encoded_gray_flag_lmdb": Options(gray=True, encoded=True),
    "encoded_gray_resized_lmdb": Options(
        gray=True, encoded=True, encode_type="png", resize_height=12, resize_width=10
    ),
}


def content(path: Path) -> list[tuple[bytes, bytes]]:
    return [(bytes(key), bytes(value)) for key, value in open_any(path).records()]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of three images each, one folder per class."""
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), 40 * label + number, np.uint8)
            cv2.imwrite(str(tmp_path / "images" / name / f"{number}.png"), pixels)
    return tmp_path / "images"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_records_are_byte_for_byte_those_of_caffe(
    name: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = tmp_path / "golden"
    shutil.copytree(FILES / name, golden)
    monkeypatch.chdir(FILES)
    listed = read_image_list("list.txt")
    convert(listed, "images/", tmp_path / "ours", COMMANDS[name], threads=threads)
    ours, theirs = content(tmp_path / "ours"), content(golden)
    # What an encoder writes depends on its version: there the decoded pixels are compared.
    if COMMANDS[name].encode_type:
        assert [key for key, _ in ours] == [key for key, _ in theirs]
        np.testing.assert_array_equal(compute_mean(tmp_path / "ours"), compute_mean(golden))
    else:
        assert ours == theirs
    assert not (tmp_path / "ours" / MARKER).exists()


@pytest.mark.parametrize("name", ["raw", "raw_resized", "encoded_png_resized", "gray"])
def test_means_are_byte_for_byte_those_of_caffe(name: str, tmp_path: Path) -> None:
    shutil.copytree(FILES / f"{name}_lmdb", tmp_path / "db")
    mean = compute_mean(tmp_path / "db")
    write_mean(mean, tmp_path / "mean")
    assert (tmp_path / "mean").read_bytes() == (FILES / f"mean_{name}.binaryproto").read_bytes()
    np.testing.assert_array_equal(read_mean(tmp_path / "mean"), mean)


@pytest.mark.parametrize("name", ["raw_lmdb", "encoded_lmdb"])
def test_a_leveldb_gets_the_same_records(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FILES)
    listed = read_image_list("list.txt")
    for backend in ("lmdb", "leveldb"):
        convert(listed, "images/", tmp_path / backend, COMMANDS[name], backend=backend)
    assert content(tmp_path / "leveldb") == content(tmp_path / "lmdb")
    with pytest.raises(ConfigError, match="only the writing of an LMDB can be resumed"):
        convert(listed, "images/", tmp_path / "other", backend="leveldb", resume=True)
    assert not (tmp_path / "other").exists()


def test_the_map_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_writer, "_FIRST_MAP_SIZE", 2**16)
    values = [bytes([number]) * 20_000 for number in range(100)]
    with LmdbWriter(tmp_path / "db") as writer:
        for number, value in enumerate(values):
            writer.put(b"%03d" % number, value)
    assert [value for _, value in content(tmp_path / "db")] == values


def test_a_conversion_that_dies_leaves_an_incomplete_database(tmp_path: Path) -> None:
    def die() -> None:
        with LmdbWriter(tmp_path / "db") as writer:
            for number in range(1500):
                writer.put(b"%05d" % number, b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    with lmdb.open(str(tmp_path / "db")).begin() as transaction:
        assert transaction.stat()["entries"] == 1000
    with pytest.raises(DataError, match="incomplete"):
        open_database(tmp_path / "db")
    with pytest.raises(ConfigError, match="unfinished"):
        LmdbWriter(tmp_path / "db")


def test_unreadable_images_are_left_out_and_named(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (images / "bee" / "1.png").write_bytes(b"damaged")
    names = ["ant/0.png", "bee/1.png", "missing.png", "bee/2.png"]
    listed = [ListedImage(line, name, 0) for line, name in enumerate(names, 1)]
    report = convert(listed, f"{images}/", tmp_path / "db", list_name="list.txt")
    assert report.stored == 2
    assert [image.path for image, _ in report.skipped] == ["bee/1.png", "missing.png"]
    assert "list.txt:3: " in caplog.text
    assert [key for key, _ in content(tmp_path / "db")] == [
        b"00000000_ant/0.png",
        b"00000003_bee/2.png",
    ]


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_nothing_to_store_is_an_error_and_leaves_nothing(backend: str, tmp_path: Path) -> None:
    listed = [ListedImage(1, "missing.png", 0)]
    for _ in range(2):  # the second time nothing is in the way
        with pytest.raises(DataError, match="none of the 1 images"):
            convert(listed, f"{tmp_path}/", tmp_path / "db", backend=backend)
        assert not (tmp_path / "db").exists()


def test_an_unfinished_database_without_records_goes_as_well(tmp_path: Path) -> None:
    writer = LmdbWriter(tmp_path / "db", job="job")  # as kill -9 leaves it
    writer._environment.close()
    assert (tmp_path / "db" / MARKER).exists()
    with (
        pytest.raises(DataError, match="nothing"),
        LmdbWriter(tmp_path / "db", job="job", resume=True),
    ):
        raise DataError("nothing")
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("writer", [LmdbWriter, LevelWriter])
def test_what_others_put_into_the_folder_stays(
    writer: type[LmdbWriter | LevelWriter], tmp_path: Path
) -> None:
    def fail() -> None:
        with writer(tmp_path / "db"):
            (tmp_path / "db" / "notes.txt").write_text("mine")
            raise DataError("nothing")

    with pytest.raises(DataError, match="nothing"):
        fail()
    assert [path.name for path in (tmp_path / "db").iterdir()] == ["notes.txt"]


def test_a_database_that_was_there_survives_a_failure(images: Path, tmp_path: Path) -> None:
    listed, _ = list_folders(images)
    convert(listed, f"{images}/", tmp_path / "db")
    with pytest.raises(ConfigError, match="exists already"):
        convert([ListedImage(1, "missing.png", 0)], f"{tmp_path}/", tmp_path / "db")
    assert len(content(tmp_path / "db")) == 6


@pytest.mark.parametrize("split", [[], ["--split=0.5"]])
def test_the_command_leaves_nothing_where_no_image_can_be_read(
    split: list[str], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in images.rglob("*.png"):
        path.write_bytes(b"damaged")
    command = ["convert_imageset", "--from_folders", str(images), str(tmp_path / "db"), *split]
    assert cli.main(command) == 3
    assert "none of the" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_split_that_leaves_a_part_empty_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert_imageset", "--from_folders", str(images), str(tmp_path / "db")]
    assert cli.main([*command, "--split=0.95"]) == 2
    error = capsys.readouterr().err
    assert "puts 6 of the 6 images into" in error
    assert "both need some" in error
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_check_size_names_the_line(images: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(images / "ant" / "1.png"), np.zeros((9, 9, 3), np.uint8))
    listed, _ = list_folders(images)
    with pytest.raises(DataError, match=r"list:2: .*243.*192"):
        convert(listed, f"{images}/", tmp_path / "db", Options(check_size=True))


def test_shuffling_changes_order_and_keys_but_not_content(images: Path, tmp_path: Path) -> None:
    listed, classes = list_folders(images)
    assert classes == ["ant", "bee"]
    convert(listed, f"{images}/", tmp_path / "plain")
    convert(listed, f"{images}/", tmp_path / "shuffled", shuffle_seed=1)
    plain, shuffled = content(tmp_path / "plain"), content(tmp_path / "shuffled")
    assert [value for _, value in plain] != [value for _, value in shuffled]
    assert sorted(value for _, value in plain) == sorted(value for _, value in shuffled)
    assert [key[:8] for key, _ in shuffled] == [b"%08d" % number for number in range(6)]


def test_a_split_keeps_the_share_of_each_label() -> None:
    listed = [ListedImage(number + 1, str(number), number % 2) for number in range(100)]
    train, rest = split(listed, 0.8, seed=3)
    assert sorted([*train, *rest], key=lambda image: image.line) == listed
    assert [sum(image.label == label for image in train) for label in (0, 1)] == [40, 40]


def test_lists_may_have_crlf_a_mark_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa b.png 3\r\nc\xff.png 4\r\n\r\nd.png x\r\n")
    first, second, third = read_image_list(path)
    assert (first.path, first.label) == ("a b.png", 3)
    assert second.path.encode("utf-8", "surrogateescape") == b"c\xff.png"
    assert (third.line, third.label) == (4, 0)
    path.write_text("a.png 1\nlonely\n")
    with pytest.raises(DataError, match=r"list\.txt:2: .*lonely"):
        read_image_list(path)
    path.write_text("")
    with pytest.raises(DataError, match="no images"):
        read_image_list(path)


def test_the_command_line(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["convert_imageset", "--from_folders", str(images), "--split=0.67", "db"]) == 0
    assert (tmp_path / "db_labels.txt").read_text() == "ant\nbee\n"
    assert len(content(tmp_path / "db_train")) == 4
    assert len(content(tmp_path / "db_val")) == 2
    assert cli.main(["compute_image_mean", "db_train", "mean.binaryproto"]) == 0
    assert "Number of channels: 3\nmean_value channel [0]: " in capsys.readouterr().out
    assert read_mean("mean.binaryproto").shape == (3, 8, 8)
    command = ["convert_imageset", "-backend=leveldb", "--from_folders", str(images), "levels"]
    assert cli.main(command) == 0
    assert len(content(tmp_path / "levels")) == 6
    assert cli.main(["compute_image_mean", "-backend=leveldb", "levels", "levels_mean"]) == 0
    # A database that exists is never touched.
    assert cli.main(["convert_imageset", "--from_folders", str(images), "db_train"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["convert_imageset", "only_one"]) == 2
    assert cli.main(["compute_image_mean", "missing"]) == 3


@pytest.mark.parametrize("committed", [1, 2, 4])
def test_an_interrupted_conversion_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: int
) -> None:
    listed, _ = list_folders(images)
    listed.insert(1, ListedImage(7, "missing.png", 0))
    listed = [ListedImage(n, each.path, each.label) for n, each in enumerate(listed, 1)]
    whole = convert(listed, f"{images}/", tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(writer: LmdbWriter, key: bytes, value: bytes) -> None:
        if writer.count == committed:
            raise Interrupted
        put(writer, key, value)

    put = LmdbWriter.put
    monkeypatch.setattr(lmdb_writer, "COMMIT_EVERY", 1)
    monkeypatch.setattr(LmdbWriter, "put", interrupt)
    with pytest.raises(Interrupted):
        convert(listed, f"{images}/", tmp_path / "db")
    monkeypatch.setattr(LmdbWriter, "put", put)
    with pytest.raises(ConfigError, match="another conversion"):
        convert(listed, f"{images}/", tmp_path / "db", Options(gray=True), resume=True)
    with pytest.raises(ConfigError, match="unfinished"):
        convert(listed, f"{images}/", tmp_path / "db")
    report = convert(listed, f"{images}/", tmp_path / "db", Options(), resume=True)
    assert content(tmp_path / "db") == content(tmp_path / "whole")
    assert report.stored == whole.stored == 6
    assert [image.path for image, _ in report.skipped] == ["missing.png"]
    # A finished database is not touched.
    with pytest.raises(ConfigError, match="exists already"):
        convert(listed, f"{images}/", tmp_path / "db", resume=True)


def test_the_command_says_what_was_left_out_and_why(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "ant" / "1.png").write_bytes(b"damaged")
    (images / "bee" / "1.png").write_bytes(b"")
    command = ["convert_imageset", "--resume", "--from_folders", str(images), str(tmp_path / "db")]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "db: 4 records" in text
    assert "left out: 2 images" in text
    assert "1 x the 7 bytes cannot be decoded as an image" in text
    assert "1 x the image is empty (0 bytes)" in text
    assert cli.main(command) == 0
    assert "is complete" in capsys.readouterr().out
