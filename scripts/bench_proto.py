"""How fast files are read and written: a long prototxt, and weights of 240 MB.

    python scripts/bench_proto.py [--megabytes 240] [--runs 5]

Prints the median and the range of the runs, and the peak memory of a process of its own that does
nothing but read (or write) the weights.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from cortado.proto.weights import LayerBlobs, read_weights, write_weights
from cortado.proto.wire import BlobArray

LAYERS = """layer {{
  name: "res{0}_branch2a"
  type: "Convolution"
  bottom: "res{0}"
  top: "res{0}_branch2a"
  convolution_param {{
    num_output: 64
    kernel_size: 3
    pad: 1
    stride: 1
    weight_filler {{ type: "msra" }}
    bias_term: false
  }}
}}
layer {{
  name: "bn{0}_branch2a"
  type: "BatchNorm"
  bottom: "res{0}_branch2a"
  top: "res{0}_branch2a"
  batch_norm_param {{
    use_global_stats: true
  }}
}}
"""


def timed(action: Callable[[], object], runs: int) -> str:
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    middle = statistics.median(seconds)
    return f"{middle:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


def peak_of(target: Callable[..., object], *arguments: object) -> int:
    """Peak memory in bytes of a fresh process that calls ``target``, less what imports take."""
    context = multiprocessing.get_context("spawn")
    peaks = context.SimpleQueue()
    process = context.Process(target=_measured, args=(peaks, target, arguments))
    process.start()
    process.join()
    return int(peaks.get())


def _measured(peaks: object, target: Callable[..., object], arguments: tuple[object, ...]) -> None:
    before = _memory("VmRSS")
    target(*arguments)
    peaks.put(_memory("VmHWM") - before)  # type: ignore[attr-defined]


def _memory(name: str) -> int:
    """A figure of Linux's account of this process, in bytes (getrusage's peak outlives exec)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"this system does not tell {name}")


def weights(megabytes: int) -> tuple[caffe_pb2.NetParameter, list[LayerBlobs]]:
    """A net like VGG's: one very large layer and several of moderate size."""
    net = caffe_pb2.NetParameter(name="bench")
    blobs = []
    values = megabytes * 2**20 // 4
    for index, share in enumerate((0.7, 0.1, 0.1, 0.05, 0.05)):
        net.layer.add(name=f"fc{index}", type="InnerProduct")
        array = np.random.default_rng(index).random((int(values * share) // 1024, 1024), "f4")
        blobs.append(LayerBlobs(f"fc{index}", "InnerProduct", [BlobArray(array)]))
    return net, blobs


def write_some(path: str, megabytes: int) -> None:
    write_weights(path, *weights(megabytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=240)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    text = "".join(LAYERS.format(index) for index in range(320))
    print(f"prototxt of {len(text.splitlines()):,} lines")
    print(
        "  read with positions:   ",
        timed(lambda: parse(text, caffe_pb2.NetParameter), options.runs),
    )
    other = timed(lambda: text_format.Parse(text, caffe_pb2.NetParameter()), options.runs)
    print("  protobuf's text_format:", other)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "bench.caffemodel")
        net, blobs = weights(options.megabytes)
        print(f"caffemodel of {options.megabytes} MiB")
        print(
            "  write, flushed to disk:",
            timed(lambda: write_weights(path, net, blobs), options.runs),
        )
        print("  read into arrays:      ", timed(lambda: read_weights(path), options.runs))
        size = os.path.getsize(path)
        print(f"  peak memory of reading: {peak_of(read_weights, path) / size:.2f} x the file")
        peak = peak_of(write_some, path, options.megabytes)
        print(f"  peak memory of writing: {peak / size:.2f} x the file (the arrays included)")


if __name__ == "__main__":
    main()
