"""Reading whole files, with one clear error for a path that cannot be read as what it should be."""

from __future__ import annotations

import os

from .errors import ConfigError

AnyPath = str | os.PathLike[str]

#: Prototxt files larger than this are refused before they are read.
MAX_TEXT_BYTES = 16 * 2**20


def read_text(path: AnyPath, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a prototxt file; its size is checked before it is read.

    Bytes that are not UTF-8 come as lone surrogates: in a comment they do no harm.
    """
    raw = read_bytes(path, limit)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path}: is UTF-16 text; save it as UTF-8")
    if b"\0" in raw:
        raise ConfigError(f"{path}: is a binary file, but must be prototxt (text)")
    return raw.decode("utf-8", "surrogateescape")


def read_bytes(path: AnyPath, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= limit:
                raw = file.read(limit + 1)  # pipes have no size before they are read
                size = len(raw)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError(f"{path}: {reason}") from None
    if size > limit:
        raise ConfigError(f"{path}: is {size:,} bytes; at most {limit:,} can be read")
    return raw
