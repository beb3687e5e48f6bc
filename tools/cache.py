"""Show what is kept for later runs (downloads, features, what was compiled), or clear it.

cortado cache [list]           each kind: how many files, their size, the folder
cortado cache clear KIND ...   remove what is kept of these kinds; all stands for every kind

Everything is in the folder that CORTADO_HOME names (~/.cache/cortado without it) and is made or
downloaded again when it is needed. Folders that somebody else made there, and those of
--feature_cache, are not touched.

example:
  cortado cache clear features
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ..proto.errors import ConfigError
from ..proto.folders import Cache
from .check import aligned
from .flags import named

ALL = "all"
NAMES = (*(cache.folder for cache in Cache), ALL)
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        type=named("action", ACTIONS),
        nargs="?",
        default="list",
        metavar="ACTION",
        help=", ".join(ACTIONS),
    )
    parser.add_argument(
        "kinds", type=named("kind", NAMES), nargs="*", metavar="KIND", help=", ".join(NAMES)
    )


def run(args: argparse.Namespace) -> int:
    ACTIONS[args.action](args.kinds)
    return 0


def show(kinds: Sequence[str]) -> None:
    """One line for each kind, all of them if none is named."""
    rows = [("kind", "files", "size", "what it is", "folder")]
    for cache in chosen(kinds or [ALL]):
        used = cache.usage()
        rows.append(
            (cache.folder, f"{used.files:,}", size(used.bytes), cache.about, str(cache.path))
        )
    print(aligned(rows, right=(1, 2)))


def clear(kinds: Sequence[str]) -> None:
    """Remove what is kept, and say how much that was."""
    if not kinds:
        raise ConfigError(f"cortado cache clear: name what to remove (some of {', '.join(NAMES)})")
    for cache in chosen(kinds):
        if not cache.usage().files:
            print(f"{cache.folder}: nothing is kept in {cache.path}")
        elif ALL in kinds and not cache.is_own:
            print(f"{cache.folder}: left alone, as Cortado did not make {cache.path}")
        else:
            removed = cache.clear()
            print(
                f"{cache.folder}: removed {removed.files:,} file{'s' * (removed.files != 1)}, "
                f"{size(removed.bytes)}, from {cache.path}"
            )


def chosen(kinds: Sequence[str]) -> list[Cache]:
    """The caches that go by these names."""
    return [cache for cache in Cache if cache.folder in kinds or ALL in kinds]


def size(count: float) -> str:
    """``count`` bytes in the unit that suits it."""
    unit = 0
    while count >= 1024 and unit + 1 < len(UNITS):
        count /= 1024
        unit += 1
    return f"{count:.1f} {UNITS[unit]}" if unit else f"{count:.0f} {UNITS[0]}"


ACTIONS: dict[str, Callable[[Sequence[str]], None]] = {"list": show, "clear": clear}
