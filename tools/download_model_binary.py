"""Download the weights that a model folder's readme.md names, and check them.

The readme begins with YAML between two lines of ---; it must hold caffemodel (the file's name),
caffemodel_url and sha1. A download that was interrupted goes on where it stopped.

example:
  cortado download_model_binary models/bvlc_googlenet
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..proto.errors import ConfigError
from .output.bars import transfer

KEYS = ("caffemodel", "caffemodel_url", "sha1")
RULE = "---"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="MODEL_DIR", help="folder with a readme.md")


def run(args: argparse.Namespace) -> int:
    from ..model_zoo.download import Checksum, RemoteFile, obtain

    folder = Path(args.folder)
    facts = front_matter(folder / "readme.md")
    name = facts["caffemodel"]
    if Path(name).name != name:
        raise ConfigError(f"{folder / 'readme.md'}: caffemodel must be a file name, got {name!r}")
    target = folder / name
    wanted = RemoteFile(facts["caffemodel_url"], Checksum("sha1", facts["sha1"].lower()))
    if target.exists() and wanted.checksum.matches(target):
        print("Model already exists.")
        return 0
    target.unlink(missing_ok=True)
    with transfer(name) as progress:
        found = obtain(wanted, folder, progress=progress)
    found.replace(target)
    print(f"{target}: {target.stat().st_size:,} bytes, as published")
    return 0


def front_matter(path: Path) -> dict[str, str]:
    """What a readme says about the weights; ConfigError where it does not say it."""
    import yaml

    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    if lines.count(RULE) < 2:
        raise ConfigError(f"{path}: must begin with YAML between two lines of {RULE}")
    top = lines.index(RULE)
    try:
        # The base loader leaves every value a string: a checksum of digits is no number.
        loader = yaml.BaseLoader("\n".join(lines[top + 1 : lines.index(RULE, top + 1)]))
        facts = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is no YAML between its lines of {RULE}: {error}") from None
    missing = [key for key in KEYS if not isinstance(facts, dict) or not facts.get(key)]
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(missing)}")
    return {key: str(facts[key]) for key in KEYS}
