"""Fetching a file of known checksum: it ends up complete and right under its name, or not at all.

What came before an interruption is kept and continued. Only http and https are followed, wherever a
server redirects to; file: is for mirrors, which the user names.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..proto.errors import ConfigError, ResourceError, SnapshotError
from ..proto.recognise import recognise

logger = logging.getLogger(__name__)

#: Told how many bytes are there, and of how many (0 if that is not known).
Progress = Callable[[int, int], None]

CHUNK = 1 << 18
TIMEOUT_SECONDS = 30.0
#: Attempts in a row that bring nothing before a download is given up.
ATTEMPTS = 3
#: No published weights are larger.
MAX_BYTES = 8 * 2**30

_HEX = re.compile(r"[0-9a-f]{8,}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Checksum:
    """The beginning of a file's digest, as its publisher gives it: ``algorithm`` sha256 or sha1."""

    algorithm: str
    digits: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.digits):
            raise ConfigError(f"checksum must be 8 or more hexadecimal digits, got {self.digits!r}")

    def of(self, path: Path) -> str:
        """The digits of ``path``, as many as are known."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, self.algorithm).hexdigest()
        return digest[: len(self.digits)]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file: where it is, its digest, and at most how many bytes it may have."""

    url: str
    checksum: Checksum
    max_bytes: int = MAX_BYTES

    @property
    def name(self) -> str:
        """The last part of the address; ConfigError if that is no plain file name."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path.rpartition("/")[2])
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"{self.url}: does not end in the plain name of a file")
        return name


def obtain(
    wanted: RemoteFile, folder: Path, *, mirror: str = "", progress: Progress | None = None
) -> Path:
    """``wanted`` in ``folder``, downloaded unless it is there; ``mirror`` is asked in its place.

    A mirror is an address (http, https or file) of a folder with files of the same names. Calls in
    other threads and processes wait for the one that downloads. SnapshotError if what comes is not
    what was published (it is deleted), ResourceError if it cannot be fetched or stored.
    """
    target = folder / wanted.name
    url = f"{mirror.rstrip('/')}/{wanted.name}" if mirror else wanted.url
    allowed = ("http", "https", "file") if mirror else ("http", "https")
    if urllib.parse.urlsplit(url).scheme not in allowed:
        raise ConfigError(f"{url}: only {', '.join(allowed)} addresses are fetched")
    with _writable(folder), _locked(folder / f".{wanted.name}.lock"):
        if target.exists():
            return target
        logger.info(f"Downloading {url} to {folder}")
        partial = folder / f".{wanted.name}.partial"
        try:
            _receive(url, partial, wanted.max_bytes, progress)
            _check(url, partial, wanted.checksum)
        except SnapshotError:
            partial.unlink(missing_ok=True)
            raise
        os.replace(partial, target)
    return target


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ResourceError(f"{folder}: {error.strerror or error}") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, which the system drops when its owner dies."""
    with open(path, "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def verify(wanted: RemoteFile, path: Path) -> None:
    """SnapshotError if ``path`` is not what was published."""
    _check(str(path), path, wanted.checksum)


def _check(origin: str, path: Path, checksum: Checksum) -> None:
    found = checksum.of(path)
    if found != checksum.digits:
        with open(path, "rb") as file:
            what = recognise(file.read(4096))
        raise SnapshotError(
            f"{origin}: {checksum.algorithm} is {found}, must be {checksum.digits} "
            f"({path.stat().st_size:,} bytes, {what})"
        )


def _receive(url: str, partial: Path, limit: int, progress: Progress | None) -> None:
    """Bring ``partial`` to the full content of ``url``, going on as long as bytes come."""
    idle = 0
    while True:
        before = _size(partial)
        try:
            if _attempt(url, partial, limit, progress):
                return
            reason = "the connection ended early"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error)
        if partial.exists() and _disk_is_full(partial):
            raise ResourceError(f"{partial.parent}: no space left for {url}")
        idle = 0 if _size(partial) > before else idle + 1
        if idle == ATTEMPTS:
            if _size(partial):
                raise SnapshotError(f"{url}: incomplete, {_size(partial):,} bytes came ({reason})")
            raise ResourceError(f"{url}: cannot be fetched ({reason}); a mirror can be named")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _disk_is_full(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < CHUNK


def _attempt(url: str, partial: Path, limit: int, progress: Progress | None) -> bool:
    """Ask for what is missing; whether all of it came."""
    have = _size(partial)
    request = urllib.request.Request(url)  # noqa: S310 (the caller has checked the scheme)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as reply:
            start, total = _extent(reply, have)
            _refuse(url, reply, total, limit)
            _make_room(partial, total - start)
            with open(partial, "r+b" if start else "wb") as file:
                file.seek(start)
                done = _copy(url, reply, file, start, total, limit, progress)
            return done == total or (not total and done > 0)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return True  # nothing is missing; the checksum decides
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        raise SnapshotError(f"{url}: the server answers {error.code} {error.reason}") from None


def _extent(reply: Any, have: int) -> tuple[int, int]:
    """At which byte a reply begins, and how many the whole file has (0 if that is not said)."""
    length = int(reply.headers.get("Content-Length") or 0)
    answer = _RANGE.fullmatch(reply.headers.get("Content-Range") or "")
    if getattr(reply, "status", None) == http.HTTPStatus.PARTIAL_CONTENT and answer:
        start = int(answer[1])
        if start <= have:
            return start, start + length if answer[2] == "*" else int(answer[2])
    return 0, length


def _refuse(url: str, reply: Any, total: int, limit: int) -> None:
    if reply.headers.get_content_type() == "text/html":
        raise SnapshotError(f"{url}: gives an HTML page instead of weights")
    if total > limit:
        raise SnapshotError(f"{url}: has {total:,} bytes; at most {limit:,} are taken")


def _make_room(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise ResourceError(
            f"{partial.parent}: needs {needed:,} bytes for {partial.name}, has {free:,}"
        )


def _copy(
    url: str, reply: Any, file: Any, done: int, total: int, limit: int, progress: Progress | None
) -> int:
    while block := reply.read(CHUNK):
        done += len(block)
        if done > limit:
            raise SnapshotError(f"{url}: gives more than {limit:,} bytes")
        file.write(block)
        if progress is not None:
            progress(done, total)
    return done


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise SnapshotError(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        # urllib's own refusal of other schemes comes before redirect_request and names no reason.
        target = urllib.parse.urljoin(req.full_url, headers.get("location", ""))
        if urllib.parse.urlsplit(target).scheme not in ("http", "https"):
            raise SnapshotError(f"{req.full_url}: redirects to {target}, which is not followed")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


_OPENER = urllib.request.build_opener(_Redirects)
