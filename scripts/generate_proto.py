"""Regenerate proto/caffe_pb2.py and .pyi from proto/caffe.proto (`pip install cortado[proto]`).

`--check` compares instead of writing, and exits 1 on a difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent.parent / "proto"
GENERATED = ("caffe_pb2.py", "caffe_pb2.pyi")


def generate(target: Path) -> None:
    """Write the generated modules into ``target``."""
    from grpc_tools import protoc

    # The full path makes the file's name in the descriptor pool our own: another Caffe schema in
    # the same process would otherwise clash over "caffe.proto".
    arguments = ["protoc", f"-Icortado/proto={PROTO}", f"--python_out={target}"]
    if protoc.main([*arguments, f"--pyi_out={target}", "cortado/proto/caffe.proto"]) != 0:
        sys.exit("protoc failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        for name in GENERATED:
            fresh = (Path(folder) / "cortado/proto" / name).read_text()
            current = PROTO / name
            if not check:
                current.write_text(fresh)
            elif not current.exists() or current.read_text() != fresh:
                print(f"{name} is not what caffe.proto generates: run {Path(__file__).name}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
