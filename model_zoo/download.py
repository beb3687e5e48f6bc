"""Fetching a file of known checksum: it ends up complete and right under its name, or not at all.

Weights and data sets come this way. What came before an interruption is kept and continued. Only
http and https are followed, wherever a server redirects to; file: is for mirrors, which the user
names.
"""

from __future__ import annotations

import errno
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

from ..proto.errors import ConfigError, CortadoError, ResourceError, SnapshotError
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
    """The beginning of a file's digest, as its publisher gives it.

    ``algorithm`` is sha256, sha1 or md5; the latter two tell a broken copy from a good one, but are
    no protection against a forged one.
    """

    algorithm: str
    digits: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.digits):
            raise ConfigError(f"checksum must be 8 or more hexadecimal digits, got {self.digits!r}")

    def of(self, path: Path) -> str:
        """The digits of ``path``, as many as are known."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, self._start)
        return digest.hexdigest()[: len(self.digits)]

    def _start(self) -> Any:
        return hashlib.new(self.algorithm, usedforsecurity=self.algorithm == "sha256")

    def matches(self, path: Path) -> bool:
        return self.of(path) == self.digits


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file: where it is, its digest, and at most how many bytes it may have.

    ``refusal`` is raised if something else comes in its place; ``otherwise`` says what can be done
    where it cannot be fetched.
    """

    url: str
    checksum: Checksum
    max_bytes: int = MAX_BYTES
    refusal: type[CortadoError] = SnapshotError
    otherwise: str = "a mirror can be named"

    @property
    def name(self) -> str:
        """The last part of the address; ConfigError if that is no plain file name."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path.rpartition("/")[2])
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"{self.url}: does not end in the plain name of a file")
        return name


def obtain(
    wanted: RemoteFile,
    folder: Path,
    *,
    mirror: str = "",
    recheck: bool = False,
    progress: Progress | None = None,
) -> Path:
    """``wanted`` in ``folder``, downloaded unless it is there; ``mirror`` is asked in its place.

    A mirror is an address (http, https or file) of a folder with files of the same names. With
    ``recheck`` a file that is there must be the published one, or is replaced. Calls in other
    threads and processes wait for the one that downloads. The file's refusal (SnapshotError) if
    what comes is not what was published (it is deleted), ResourceError if it cannot be fetched or
    stored.
    """
    target = folder / wanted.name
    url = f"{mirror.rstrip('/')}/{wanted.name}" if mirror else wanted.url
    allowed = ("http", "https", "file") if mirror else ("http", "https")
    if urllib.parse.urlsplit(url).scheme not in allowed:
        raise ConfigError(f"{url}: only {', '.join(allowed)} addresses are fetched")
    with _writable(folder), _locked(folder / f".{wanted.name}.lock"):
        if target.exists() and not (recheck and not wanted.checksum.matches(target)):
            return target
        logger.info(f"Downloading {url} to {folder}")
        partial = folder / f".{wanted.name}.partial"
        try:
            _Transfer(url, wanted, partial, progress).run()
            verify(wanted.checksum, partial, url, wanted.refusal)
        except wanted.refusal:
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


def verify(
    checksum: Checksum,
    path: Path,
    origin: str = "",
    refusal: type[CortadoError] = SnapshotError,
) -> None:
    """``refusal`` if ``path``, which came from ``origin``, is not what was published."""
    found = checksum.of(path)
    if found != checksum.digits:
        with open(path, "rb") as file:
            what = recognise(file.read(4096))
        raise refusal(
            f"{origin or path}: {checksum.algorithm} is {found}, must be {checksum.digits} "
            f"({path.stat().st_size:,} bytes, {what})"
        )


@dataclass(slots=True)
class _Transfer:
    """One file on its way from ``url`` to ``partial``, in as many attempts as it takes."""

    url: str
    wanted: RemoteFile
    partial: Path
    progress: Progress | None

    def run(self) -> None:
        """Bring all of it, going on as long as bytes come."""
        idle = 0
        while True:
            before = self._have()
            lost = True
            try:
                if self._attempt():
                    return
                reason, lost = "the connection ended early", False
            except http.client.HTTPException as error:
                reason, lost = f"the connection ended early: {error}", False
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise self._no_space() from None
                reason = _reason(error)
            idle = 0 if self._have() > before else idle + 1
            if idle == ATTEMPTS:
                raise self._given_up(reason, lost)

    def _have(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _given_up(self, reason: str, lost: bool) -> CortadoError:
        """What a server that answers too little is told from one that does not answer."""
        have = self._have()
        if have and not lost:
            return self.wanted.refusal(f"{self.url}: incomplete, {have:,} bytes came ({reason})")
        kept = "; the same command goes on with what came" if have else ""
        return ResourceError(
            f"{self.url}: cannot be fetched ({reason}); {self.wanted.otherwise}{kept}"
        )

    def _no_space(self) -> ResourceError:
        have = self._have()
        self.partial.unlink(missing_ok=True)  # so that the rest of the machine goes on
        return ResourceError(
            f"{self.partial.parent}: no space left for {self.url} after {have:,} bytes"
        )

    def _attempt(self) -> bool:
        """Ask for what is missing; whether all of it came."""
        have = self._have()
        request = urllib.request.Request(self.url)  # noqa: S310 (the caller has checked the scheme)
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as reply:
                start, total = _extent(reply, have)
                self._refuse(reply, total)
                self._make_room(total - start)
                with open(self.partial, "r+b" if start else "wb") as file:
                    file.seek(start)
                    done = self._copy(reply, file, start, total)
                return done == total or (not total and done > 0)
        except _Misled as error:
            raise self.wanted.refusal(str(error)) from None
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                return True  # nothing is missing; the checksum decides
            if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            raise self.wanted.refusal(f"{self.url}: the server answers {_reason(error)}") from None

    def _refuse(self, reply: Any, total: int) -> None:
        limit = self.wanted.max_bytes
        if reply.headers.get_content_type() == "text/html":
            raise self.wanted.refusal(f"{self.url}: gives an HTML page instead of the file")
        if total > limit:
            raise self.wanted.refusal(
                f"{self.url}: has {total:,} bytes; at most {limit:,} are taken"
            )

    def _make_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.partial.parent).free
        if needed > free:
            raise ResourceError(
                f"{self.partial.parent}: needs {needed:,} bytes for {self.partial.name}, "
                f"has {free:,}"
            )

    def _copy(self, reply: Any, file: Any, done: int, total: int) -> int:
        while block := reply.read(CHUNK):
            done += len(block)
            if done > self.wanted.max_bytes:
                raise self.wanted.refusal(
                    f"{self.url}: gives more than {self.wanted.max_bytes:,} bytes"
                )
            file.write(block)
            if self.progress is not None:
                self.progress(done, total)
        return done


def _reason(error: OSError) -> str:
    """What went wrong: a server's answer with its number, or what stands behind urllib's words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)


def _extent(reply: Any, have: int) -> tuple[int, int]:
    """At which byte a reply begins, and how many the whole file has (0 if that is not said)."""
    length = int(reply.headers.get("Content-Length") or 0)
    answer = _RANGE.fullmatch(reply.headers.get("Content-Range") or "")
    if getattr(reply, "status", None) == http.HTTPStatus.PARTIAL_CONTENT and answer:
        start = int(answer[1])
        if start <= have:
            return start, start + length if answer[2] == "*" else int(answer[2])
    return 0, length


class _Misled(Exception):
    """A server sends us where we do not go."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise _Misled(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        # urllib's own refusal of other schemes comes before redirect_request and names no reason.
        target = urllib.parse.urljoin(req.full_url, headers.get("location", ""))
        if urllib.parse.urlsplit(target).scheme not in ("http", "https"):
            raise _Misled(f"{req.full_url}: redirects to {target}, which is not followed")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


_OPENER = urllib.request.build_opener(_Redirects)
