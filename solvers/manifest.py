"""Which snapshots of a prefix are complete: a small file of checksums beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..proto.atomic import TEMPORARY_SUFFIX, write_atomically
from ..proto.errors import SnapshotError
from ..proto.state import read_state
from ..proto.weights import read_weights

_STATE = re.compile(r"(?:_best)?_iter_(\d+)\.solverstate(\.h5)?$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a snapshot: its name without folder, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


def manifest_path(prefix: str) -> Path:
    return Path(f"{prefix}_snapshots.json")


def checksum(path: Path) -> Entry:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path.name, path.stat().st_size, found)


def read(prefix: str) -> dict[str, Entry]:
    """The recorded files by name; empty if there is no record or it cannot be read."""
    try:
        entries = json.loads(manifest_path(prefix).read_text())["files"]
        return {entry["name"]: Entry(**entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def record(prefix: str, *paths: Path) -> None:
    """Enter complete files; those that have been deleted since are dropped."""
    folder = manifest_path(prefix).parent
    entries = {name: e for name, e in read(prefix).items() if (folder / name).exists()}
    entries.update((path.name, checksum(path)) for path in paths)
    listed = [asdict(entry) for entry in entries.values()]
    with write_atomically(manifest_path(prefix)) as file:
        file.write(json.dumps({"files": listed}, indent=1).encode())


def prefix_of(state: Path) -> str | None:
    """The snapshot prefix of a state file's path, None if it is not named as one."""
    match = _STATE.search(str(state))
    return str(state)[: match.start()] if match else None


def verify(path: Path, entries: dict[str, Entry]) -> None:
    """SnapshotError if ``path`` is not what was recorded for it; unrecorded files pass."""
    entry = entries.get(path.name)
    if entry is None:
        return
    size = path.stat().st_size
    if size != entry.size:
        raise SnapshotError(f"{path}: has {size:,} bytes, but {entry.size:,} were written")
    found = checksum(path).sha256
    if found != entry.sha256:
        raise SnapshotError(
            f"{path}: is damaged: its SHA-256 is {found[:12]}..., but {entry.sha256[:12]}... "
            "was written"
        )


def sibling(state: Path, label: str) -> Path:
    """The weights called ``label`` that belong to a state: run_iter_5 has run_ema_iter_5."""
    weights = state.name.replace(".solverstate", ".caffemodel")
    stem, mark, rest = weights.rpartition("_best_iter_" if "_best_iter_" in weights else "_iter_")
    return state.with_name(f"{stem}_{label}{mark}{rest}")


def weights_of(state: Path, learned_net: str) -> Path:
    """The weights that belong to a state: the path as written, or that name beside the state."""
    written = Path(learned_net)
    beside = state.parent / written.name
    for path in (written, beside):
        if path.is_file():
            return path
    raise SnapshotError(f"{state}: its weights {learned_net!r} are missing (nor is there {beside})")


def candidates(prefix: str) -> Iterator[Path]:
    """The state files of ``prefix``, newest iteration first."""
    folder, stem = Path(prefix).parent, Path(prefix).name
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = _STATE.search(path.name)
            if match and path.name == f"{stem}_iter_{match[1]}.solverstate{match[2] or ''}":
                found.append((int(match.group(1)), path))
    for _, path in sorted(found, reverse=True):
        yield path


def find_latest(prefix: str, rejected: list[str] | None = None) -> Path | None:
    """The newest complete snapshot of ``prefix``, or None.

    A snapshot is complete if state and weights are there, are what was recorded, and can be read.
    The reasons against newer ones are appended to ``rejected``.
    """
    entries = read(prefix)
    for path in candidates(prefix):
        try:
            verify(path, entries)
            weights = weights_of(path, read_state(path).learned_net)
            verify(weights, entries)
            if weights.name not in entries:
                read_weights(weights)
            return path
        except (SnapshotError, OSError) as error:
            if rejected is not None:
                rejected.append(str(error))
    return None


def remove_leftovers(prefix: str) -> list[Path]:
    """Delete half-written files of this prefix; call it while holding the prefix's lock."""
    removed = []
    start = f".{Path(prefix).name}_"
    for path in Path(prefix).parent.glob(f".*{TEMPORARY_SUFFIX}"):
        if path.name.startswith(start):
            with contextlib.suppress(OSError):
                os.unlink(path)
                removed.append(path)
    return removed
