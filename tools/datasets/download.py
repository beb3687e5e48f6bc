"""Fetching files of known checksum over HTTP, going on where an interrupted download stopped."""

from __future__ import annotations

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...proto.errors import DataError, ResourceError

logger = logging.getLogger(__name__)

CHUNK = 1 << 16
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file by name, with the MD5 that its publishers give and its size in bytes (0: unknown).

    The sum tells a broken copy; it is no protection against a forged one.
    """

    name: str
    md5: str
    size: int = 0


def md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def obtain(
    wanted: RemoteFile,
    base_url: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The file ``wanted`` in ``folder``, downloaded from ``base_url`` unless it is there already.

    An interrupted download leaves ``<name>.part``, from which the next call goes on. Raises
    ResourceError if the server cannot be reached, DataError (with the part deleted) if what came
    has another checksum. ``progress`` is told how many bytes there are, and of how many.
    """
    target = folder / wanted.name
    if target.exists() and md5_of(target) == wanted.md5:
        return target
    part = folder / f"{wanted.name}.part"
    url = f"{base_url.rstrip('/')}/{wanted.name}"
    if not url.startswith(("https://", "http://")):
        raise ResourceError(f"{url}: only http and https are fetched")
    _receive(url, part, progress)
    found = md5_of(part)
    if found != wanted.md5:
        part.unlink()
        raise DataError(f"{url}: checksum is {found}, must be {wanted.md5}; what came was deleted")
    part.replace(target)
    return target


def _receive(url: str, part: Path, progress: Callable[[int, int], None] | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)  # noqa: S310 (the caller has checked the scheme)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310
            if reply.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server sends all of it
            total = have + int(reply.headers.get("Content-Length") or 0)
            logger.info(f"{url}: from byte {have} of {total}")
            with part.open("ab" if have else "wb") as file:
                while block := reply.read(CHUNK):
                    file.write(block)
                    have += len(block)
                    if progress is not None:
                        progress(have, total)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is complete; its checksum decides
        raise ResourceError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"{url} cannot be fetched ({reason}); run the same command again to go on, or give "
            "--source DIR with files that you have"
        ) from None
    if have < total:
        raise ResourceError(
            f"{url}: the connection ended after {have} of {total} bytes; run the same command "
            "again to go on"
        )
