"""Downloads: complete and right, or not there at all."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from cortado.model_zoo import download
from cortado.model_zoo.download import Checksum, RemoteFile, obtain
from cortado.proto.errors import ConfigError, CortadoError, ResourceError, SnapshotError
from support.file_server import Page, Server, serving

CONTENT = bytes(range(256)) * 4096  # 1 MiB
NAME = "net-weights.pth"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.pages[f"/{NAME}"] = Page(CONTENT)
        yield running


def remote(server: Server, content: bytes = CONTENT, path: str = NAME) -> RemoteFile:
    digits = hashlib.sha256(content).hexdigest()
    return RemoteFile(f"{server.address}/{path}", Checksum("sha256", digits[:8]))


def files(folder: Path) -> list[str]:
    """What is in ``folder`` but for locks."""
    if not folder.exists():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def refused(server: Server, folder: Path, words: str, wanted: RemoteFile | None = None) -> None:
    """The download fails with exit code 4 and leaves nothing behind."""
    with pytest.raises(SnapshotError, match=words) as caught:
        obtain(wanted or remote(server), folder)
    assert caught.value.exit_code == 4
    assert files(folder) == []


def test_a_file_arrives_and_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = obtain(remote(server), tmp_path / "a" / "b", progress=lambda *count: seen.append(count))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert obtain(remote(server), tmp_path / "a" / "b") == path
    assert len(server.requests) == 1
    assert files(path.parent) == [NAME]


def test_sha1_is_checked_too(server: Server, tmp_path: Path) -> None:
    right = Checksum("sha1", hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest())
    assert obtain(RemoteFile(f"{server.address}/{NAME}", right), tmp_path).exists()


def test_another_checksum(server: Server, tmp_path: Path) -> None:
    refused(server, tmp_path, r"sha256 is \w{8}, must be \w{8}", remote(server, b"other"))


def test_short_read(server: Server, tmp_path: Path) -> None:
    server.pages[f"/{NAME}"] = Page(CONTENT, ranges=False, cut=1000, cuts=1000)
    refused(server, tmp_path, r"incomplete, 1,000 bytes came")


def test_an_interrupted_connection_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.pages[f"/{NAME}"].cut, server.pages[f"/{NAME}"].cuts = 300_000, 2
    assert obtain(remote(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=300000-", "bytes=600000-"]


def test_what_an_interrupted_run_left_is_continued(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > len(CONTENT) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(remote(server), tmp_path, progress=interrupt)
    assert files(tmp_path) == [f".{NAME}.partial"]
    assert obtain(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[1][1].startswith("bytes=")


def test_a_server_without_ranges_is_asked_for_all(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.partial").write_bytes(b"wrong beginning")
    server.pages[f"/{NAME}"].ranges = False
    assert obtain(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_complete_partial_file_is_checked_and_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.partial").write_bytes(CONTENT)
    assert obtain(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_gives_no_length(server: Server, tmp_path: Path) -> None:
    server.pages[f"/{NAME}"].length = False
    assert obtain(remote(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 410])
def test_not_there(server: Server, tmp_path: Path, status: int) -> None:
    server.pages[f"/{NAME}"].status = status
    refused(server, tmp_path, f"answers {status}")


def test_a_broken_server(server: Server, tmp_path: Path) -> None:
    server.pages[f"/{NAME}"].status = 503
    with pytest.raises(ResourceError, match="cannot be fetched"):
        obtain(remote(server), tmp_path)
    assert files(tmp_path) == []
    assert len(server.requests) == 3


def test_html_instead_of_weights(server: Server, tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><p>Please log in."
    server.pages[f"/{NAME}"] = Page(page, kind="text/html; charset=utf-8")
    refused(server, tmp_path, "HTML page instead of the file")
    server.pages[f"/{NAME}"] = Page(page)
    refused(server, tmp_path, "an HTML page")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_elsewhere_than_to_the_web(server: Server, tmp_path: Path, target: str) -> None:
    server.pages[f"/{NAME}"] = Page(status=302, location=target)
    refused(server, tmp_path, "which is not followed")


def test_redirects_on_the_web_are_followed(server: Server, tmp_path: Path) -> None:
    server.pages["/old.pth"] = Page(status=301, location=f"/{NAME}")
    assert obtain(remote(server, path="old.pth"), tmp_path).read_bytes() == CONTENT
    server.pages["/loop.pth"] = Page(status=302, location="/loop.pth")
    with pytest.raises(CortadoError):
        obtain(remote(server, path="loop.pth"), tmp_path)


def test_too_large(server: Server, tmp_path: Path) -> None:
    small = RemoteFile(remote(server).url, remote(server).checksum, max_bytes=1000)
    refused(server, tmp_path, "at most 1,000", small)
    server.pages[f"/{NAME}"].length = False
    refused(server, tmp_path, "more than 1,000", small)


@pytest.mark.parametrize("path", ["..%2f..%2fevil", "%2e%2e", ".hidden", "", "a%00b", "a%5cb"])
def test_names_that_lead_out_of_the_folder(server: Server, tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="plain name"):
        obtain(remote(server, path=path), tmp_path / "cache")
    assert not server.requests
    assert list(tmp_path.iterdir()) == []


def test_only_web_addresses_unless_a_mirror_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / NAME).write_bytes(CONTENT)
    local = RemoteFile(f"file://{tmp_path}/usb/{NAME}", remote(server).checksum)
    with pytest.raises(ConfigError, match="only http, https"):
        obtain(local, tmp_path / "cache")
    mirror = f"file://{tmp_path}/usb"
    path = obtain(remote(server), tmp_path / "cache", mirror=mirror)
    assert path.read_bytes() == CONTENT
    assert not server.requests
    with pytest.raises(ConfigError, match="only http, https, file"):
        obtain(remote(server), tmp_path / "other", mirror="ftp://127.0.0.1")


def test_a_mirror_must_give_the_same(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(SnapshotError, match="must be"):
        obtain(remote(server), tmp_path / "cache", mirror=f"file://{tmp_path}")
    assert files(tmp_path / "cache") == []


def test_parallel_downloads_fetch_once(server: Server, tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(obtain(remote(server), tmp_path)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 6
    assert len(server.requests) == 1


def test_an_existing_file_is_checked_when_asked(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"half")
    assert obtain(remote(server), tmp_path).read_bytes() == b"half"
    for _ in range(2):
        assert obtain(remote(server), tmp_path, recheck=True).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_what_came_is_kept_when_the_server_is_lost(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.partial").write_bytes(CONTENT[:1000])
    server.pages[f"/{NAME}"].status = 503
    with pytest.raises(ResourceError, match="goes on with what came"):
        obtain(remote(server), tmp_path)
    server.pages[f"/{NAME}"].status = 200
    assert obtain(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


def test_too_little_space_is_known_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: space)
    with pytest.raises(ResourceError, match=r"needs 1,048,576 bytes for .* has 1,000") as caught:
        obtain(remote(server), tmp_path)
    assert caught.value.exit_code == 5
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_gets_its_space_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, block: bytes) -> int:  # type: ignore[override]
            if self.tell():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(block)

    def opened(path: Path, mode: str, **options: str) -> IO[Any]:
        return Full(path, "w") if mode == "wb" else open(path, mode, **options)

    monkeypatch.setattr(download, "open", opened, raising=False)
    with pytest.raises(ResourceError, match=r"no space left for .* after [\d,]+ bytes"):
        obtain(remote(server), tmp_path)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file"):
        obtain(remote(server), tmp_path / "file" / "cache")


def test_checksums_must_be_digits() -> None:
    with pytest.raises(ConfigError, match="hexadecimal"):
        Checksum("sha256", "xyz")
