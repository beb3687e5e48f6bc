"""How long things take to start: the command's help, a net from its prototxt, a compiled net.

Each time is of a process of its own; medians and the slowest. `--compiled` adds the first and the
second start of a compiled net, which takes a minute or more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = """
import sys, time
import torch
began = time.perf_counter()
from cortado.netdef import Net
from cortado.proto.files import read_net
from cortado.netdef.deploy import deploy
from cortado.model_zoo import index
model = index.find(sys.argv[1])
message = deploy(read_net(model.net_file), {"data": (1, *model.input)})
Net(message, sys.argv[2])
print(time.perf_counter() - began)
"""
COMPILED = """
import sys, time
import torch
from cortado.netdef import Net
from cortado.netdef.execution import Execution
from cortado.tools.benchmarks import nets
message = nets.definition(sys.argv[1], 1, training=False)
net = Net(message, "TEST", execution=Execution(compile=True))
nets.ready(net)
net.fold()
batch = nets.fixed_batch(net)
with torch.inference_mode():
    began = time.perf_counter()
    net.run(batch)
    print(time.perf_counter() - began)
"""


def seconds(*arguments: str) -> float:
    """How long an interpreter with ``arguments`` runs."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - began


def printed(*arguments: str, **environment: str) -> float:
    """The number that an interpreter with ``arguments`` prints."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return float(done.stdout)


def show(what: str, times: list[float]) -> None:
    print(f"{what}: {statistics.median(times):.3f} s (slowest {max(times):.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--compiled", default="", metavar="NET")
    args = parser.parse_args()
    runs = range(args.runs)
    show("python -c pass", [seconds("-c", "pass") for _ in runs])
    show("cortado --help", [seconds("-m", "cortado.tools.cli", "--help") for _ in runs])
    for net in ("lenet", "bvlc_googlenet", "resnet50_caffe", "resnet152_caffe"):
        show(
            f"{net} from prototxt to a built net, torch being imported",
            [printed("-c", BUILD, net, "TEST") for _ in runs],
        )
    if args.compiled:
        with tempfile.TemporaryDirectory() as folder:
            for start in ("first", "second"):
                took = printed("-c", COMPILED, args.compiled, CORTADO_HOME=folder)
                print(f"{start} pass of {args.compiled} compiled: {took:.1f} s")


if __name__ == "__main__":
    main()
