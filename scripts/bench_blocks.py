"""How long the short form takes to expand: the zoo's deepest nets.

    python scripts/bench_blocks.py [--runs 11]

For each net: reading and expanding the short form (to a tree), the same with the message built
from it, and reading the plain prototxt that it expands to; in turn, the median and the range.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cortado
from cortado.proto import blocks
from cortado.proto.caffe_pb2 import NetParameter
from cortado.proto.errors import Source
from cortado.proto.files import read_prototxt
from cortado.proto.reading import read_text
from cortado.proto.syntax import read
from cortado.proto.text import parse, to_text

ZOO = Path(cortado.__file__).parent / "model_zoo"
NETS = (
    "bvlc_googlenet",
    "resnet50_caffe",
    "resnet152_caffe",
    "densenet121_caffe",
    "mobilenet_v2_caffe",
)


def expand(path: Path) -> None:
    source = Source(str(path), read_text(path))
    blocks.expand(read(source)[0], source, folder=path.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=11)
    options = parser.parse_args()
    print(f"{'net':<20}{'layers':>7}  {'expand, ms':<22}{'and build, ms':<22}plain text, ms")
    for name in NETS:
        path = ZOO / name / "net.prototxt"
        message = read_prototxt(path, NetParameter).message
        text = to_text(message)
        actions: list[Callable[[], object]] = [
            lambda path=path: expand(path),  # type: ignore[misc]
            lambda path=path: read_prototxt(path, NetParameter),  # type: ignore[misc]
            lambda text=text: parse(text, NetParameter),  # type: ignore[misc]
        ]
        times: list[list[float]] = [[] for _ in actions]
        for _ in range(options.runs):
            for action, seconds in zip(actions, times, strict=True):
                started = time.perf_counter()
                action()
                seconds.append(time.perf_counter() - started)
        cells = "".join(f"{shown(seconds):<22}" for seconds in times)
        print(f"{name:<20}{len(message.layer):>7}  {cells}".rstrip())


def shown(seconds: list[float]) -> str:
    low, middle, high = (f(seconds) * 1e3 for f in (min, statistics.median, max))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
