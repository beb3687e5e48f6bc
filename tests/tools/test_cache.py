"""cortado cache: what is kept under CORTADO_HOME, and that nothing else is ever removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import cortado
from cortado.netdef import compilation
from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.folders import Cache
from cortado.solvers.hooks.features import CachedFeatures
from cortado.tools import cli
from cortado.tools.cache import size


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill(cache: Cache, *names: str) -> None:
    """Put files of 1500 bytes into a cache's folder, as its writer does."""
    folder = cache.make()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1500))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    """The lines of a command that must succeed, by their first words."""
    assert cli.main(["cache", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {re.split(r"[: ]", line)[0]: line for line in lines}


def test_every_kind_is_listed_with_its_size(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(Cache.FEATURES, "one/0.npy", "one/blobs.json", "two/0.npy")
    lines = said(capsys)
    assert lines.keys() >= {cache.folder for cache in Cache}
    assert re.search(r" 3 +4\.4 KiB .*  " + re.escape(str(home / "features")), lines["features"])
    assert re.search(r" 0 +0 bytes ", lines["weights"])
    assert said(capsys, "list", "features").keys() & {"features", "weights"} == {"features"}
    assert not (home / "weights").exists()


def test_what_is_named_is_cleared_and_nothing_else(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cache in Cache:
        fill(cache, "deep/er/file", "file")
    (home / "notes.txt").write_text("mine")
    lines = said(capsys, "clear", "features", "native")
    assert lines["features"] == f"features: removed 2 files, 2.9 KiB, from {home / 'features'}"
    assert sorted(each.name for each in home.iterdir()) == ["compiled", "notes.txt", "weights"]
    assert said(capsys, "clear", "native")["native"].startswith("native: nothing is kept in")
    assert said(capsys, "clear", "all").keys() == {cache.folder for cache in Cache}
    assert [each.name for each in home.iterdir()] == ["notes.txt"]


def test_folders_of_others_are_left_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CORTADO_HOME may be any folder, and somebody's own weights may be in it."""
    (home / "weights").mkdir(parents=True)
    (home / "weights" / "mine.caffemodel").write_bytes(b"dear")
    fill(Cache.WEIGHTS, "lenet/w.caffemodel")
    fill(Cache.NATIVE, "a.so")
    lines = said(capsys, "clear", "all")
    assert lines["weights"].startswith("weights: left alone")
    assert lines["native"].startswith("native: removed 1 file,")
    assert cli.main(["cache", "clear", "weights"]) == 5
    assert "Cortado did not make this folder" in capsys.readouterr().err
    assert (home / "weights" / "mine.caffemodel").read_bytes() == b"dear"


def test_the_usual_home_is_all_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CORTADO_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cortado" / "native").mkdir(parents=True)
    (tmp_path / "cortado" / "native" / "a.so").touch()
    assert "removed 1 file," in said(capsys, "clear", "all")["native"]
    assert not (tmp_path / "cortado" / "native").exists()


def test_links_are_not_followed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    fill(Cache.FEATURES, "one")
    (home / "features" / "link").symlink_to(other)
    assert Cache.FEATURES.usage().files == 2
    Cache.FEATURES.clear()
    assert (other / "file").read_text() == "mine"
    assert not (home / "features").exists()
    # A cache that was moved to another disk is emptied; the link stays.
    monkeypatch.delenv("CORTADO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cortado").mkdir()
    (tmp_path / "cortado" / "features").symlink_to(other)
    Cache.FEATURES.clear()
    assert list(other.iterdir()) == []
    assert (tmp_path / "cortado" / "features").is_symlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clear"], "name what to remove"),
        (["clear", "feature"], "did you mean 'features'"),
        (["remove", "all"], "unknown action 'remove'"),
    ],
)
def test_mistakes_are_named(
    words: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Cache.FEATURES, "one")
    assert cli.main(["cache", *words]) == 2
    assert message in capsys.readouterr().err
    assert Cache.FEATURES.usage().files == 1


def test_writers_mark_their_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compilation.CACHE_VARIABLE, raising=False)
    compilation._keep_what_is_compiled()
    assert os.environ[compilation.CACHE_VARIABLE] == str(home / "compiled")
    assert CachedFeatures(SolverParameter()).folder == home / "features"
    for cache in (Cache.COMPILED, Cache.FEATURES):
        assert cache.is_own
        assert (cache.path / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f59")
        assert cache.usage().files == 0


def test_a_home_that_cannot_be_written_is_left_to_the_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path / "file"))
    assert Cache.WEIGHTS.make() == tmp_path / "file" / "weights"
    assert not Cache.WEIGHTS.path.exists()
    assert Cache.WEIGHTS.usage().files == 0


def test_all_that_is_kept_in_the_home_has_a_kind() -> None:
    """A folder below the home that is no Cache would never be shown or cleared."""
    root = Path(cortado.__file__).parent
    sources = [file for room in root.glob("[!.]*/") for file in room.rglob("*.py")]
    text = "\n".join(file.read_text("utf-8") for file in sources if "tests" not in file.parts)
    named = set(re.findall(r'\bhome\(\) / "(\w+)"', text))
    assert named <= {cache.folder for cache in Cache}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"),
     (2**51, "2048.0 TiB")],
)  # fmt: skip
def test_sizes_have_units(count: int, text: str) -> None:
    assert size(count) == text
