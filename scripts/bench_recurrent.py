"""RNN and LSTM with ``cont``, forward and backward, against stepping through time.

Stepping is what one writes in plain torch: a loop over the steps with two linear maps, the gates
and the mask under autograd. ``--caffe BINARY`` adds the times of Caffe's own layer, by ``caffe
time``. What the products alone take, one after the other on the same processor, is the least that
any way of computing takes. Processor time on one thread, else time by the clock. ``--write`` puts
the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from google.protobuf import text_format
from torch import Tensor

from cortado.layers.base import Context
from cortado.layers.registry import find
from cortado.netdef.execution import keep_freed_memory
from cortado.proto import caffe_pb2

BENCHMARKS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
STEPS, BATCH, SIZE = 50, 16, 256
PARAM = f'recurrent_param {{ num_output: {SIZE} weight_filler {{ type: "xavier" }} }}'
Times = tuple[float, float]


def build(kind: str) -> Any:
    message = text_format.Parse(f'type: "{kind}" {PARAM}', caffe_pb2.LayerParameter())
    shapes = ((STEPS, BATCH, SIZE), (STEPS, BATCH))
    layer: Any = find(kind).from_message(message, Context(shapes))
    layer.materialize()
    return layer


def stepping(layer: Any, x: Tensor, cont: Tensor) -> Tensor:
    """The same in plain torch, step by step."""
    hidden = cell = x.new_zeros(BATCH, SIZE)
    found = []
    for step in range(STEPS):
        kept = cont[step].unsqueeze(1)
        inner = F.linear(x[step], layer.weight_x, layer.bias)
        inner = inner + F.linear(hidden * kept, layer.weight_h)
        if layer.gates == 1:
            hidden = torch.tanh(inner)
            found.append(torch.tanh(F.linear(hidden, layer.weight_out, layer.bias_out)))
            continue
        enter, forget, out, value = inner.chunk(4, 1)
        cell = torch.sigmoid(forget) * (cell * kept) + torch.sigmoid(enter) * torch.tanh(value)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        found.append(hidden)
    return torch.stack(found)


def ours(layer: Any, x: Tensor, cont: Tensor) -> Tensor:
    layer.reset()
    y: Tensor = layer(x, cont)[0]
    return y


def begun(middle: bool) -> Tensor:
    """Sequences that begin at the first step, and if ``middle`` one that begins later."""
    cont = torch.ones(STEPS, BATCH)
    cont[0] = 0
    if middle:
        cont[STEPS // 2, 0] = 0
    return cont


def timed(
    function: Callable[[], Tensor], wanted: list[Tensor], clock: Callable[[], float]
) -> Times:
    began = clock()
    y = function()
    middle = clock()
    torch.autograd.grad(y, wanted, torch.ones_like(y))
    return 1e3 * (middle - began), 1e3 * (clock() - middle)


def products(layer: Any, clock: Callable[[], float]) -> Times:
    """What the matrix products of forward and of backward take, without anything else."""
    rows, size = layer.weight_h.shape
    x, inner = torch.rand(STEPS * BATCH, SIZE), torch.rand(STEPS * BATCH, rows)
    one, turned = torch.rand(BATCH, SIZE), layer.weight_h.t().contiguous()
    into, back = torch.empty(BATCH, rows), torch.empty(BATCH, size)
    last = getattr(layer, "weight_out", None)
    with torch.no_grad():
        began = clock()
        torch.mm(x, layer.weight_x.t())
        for _ in range(STEPS):
            torch.mm(one, turned, out=into)
        if last is not None:
            torch.mm(x, last.t())
        middle = clock()
        for _ in range(STEPS - 1):
            torch.mm(into, layer.weight_h, out=back)
        torch.mm(inner, layer.weight_x)
        torch.mm(inner.t(), x)
        torch.mm(inner.t(), x)
        if last is not None:
            torch.mm(x, last)
            torch.mm(x.t(), x)
        return 1e3 * (middle - began), 1e3 * (clock() - middle)


def caffe(binary: str, kind: str, threads: int) -> Times:
    """What ``caffe time`` says of its layer."""
    text = f"""force_backward: true
    layer {{ name: "data" type: "DummyData" top: "x" top: "cont" dummy_data_param {{
      shape {{ dim: [{STEPS}, {BATCH}, {SIZE}] }} shape {{ dim: [{STEPS}, {BATCH}] }}
      data_filler {{ type: "gaussian" }} data_filler {{ type: "constant" value: 1 }} }} }}
    layer {{ name: "layer" type: "{kind}" bottom: "x" bottom: "cont" top: "y" {PARAM} }}
    layer {{ name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }}"""
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(  # noqa: S603
            [binary, "time", "-model", file.name, "-iterations", "20"],
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.findall(r"layer\s+(?:forward|backward): ([\d.]+) ms", done.stderr)
    return float(found[0]), float(found[1])


def measure(kind: str, rounds: int, threads: int, binary: str) -> dict[str, list[Times]]:
    clock = time.process_time if threads == 1 else time.perf_counter
    layer = build(kind)
    x = torch.randn(STEPS, BATCH, SIZE, requires_grad=True)
    wanted = [x, *layer.parameters()]
    whole, broken = begun(False), begun(True)
    torch.testing.assert_close(
        ours(layer, x, broken), stepping(layer, x, broken), rtol=1e-3, atol=1e-4
    )
    ways: dict[str, Callable[[], Times]] = {
        "from the first step on": lambda: timed(lambda: ours(layer, x, whole), wanted, clock),
        "beginning anywhere": lambda: timed(lambda: ours(layer, x, broken), wanted, clock),
        "stepping in torch": lambda: timed(lambda: stepping(layer, x, broken), wanted, clock),
        "the products alone": lambda: products(layer, clock),
    }
    found: dict[str, list[Times]] = {name: [] for name in ways}
    for index in range(-1, rounds):
        for name in list(ways) if index % 2 else reversed(ways):
            times = ways[name]()
            if index >= 0:  # the first round warms up
                found[name].append(times)
    if binary:
        found["Caffe"] = [caffe(binary, kind, threads) for _ in range(3)]
    return found


def report(rounds: int, threads: int, binary: str) -> str:
    clock = "processor time" if threads == 1 else "time by the clock"
    lines = [
        "## Recurrent layers",
        "",
        f"`python scripts/bench_recurrent.py --threads {threads}`: T={STEPS}, N={BATCH}, D={SIZE},",
        f"{clock}, medians of {rounds} in turn; how many times the layer (sequences beginning",
        "anywhere) goes into each way. The goal is 5 for stepping.",
        "",
        "| layer | forward, ms | backward, ms | times, forward | backward | both |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("RNN", "LSTM"):
        found = measure(kind, rounds, threads, binary)
        medians = {
            name: tuple(statistics.median(side) for side in zip(*times, strict=True))
            for name, times in found.items()
        }
        base = medians["beginning anywhere"]
        for name, (forward, backward) in medians.items():
            both = (forward + backward) / sum(base)
            lines.append(
                f"| {kind}, {name} | {forward:.1f} | {backward:.1f} | {forward / base[0]:.2f} | "
                f"{backward / base[1]:.2f} | **{both:.2f}** |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--caffe", default="", metavar="BINARY")
    parser.add_argument("--write", action="store_true", help="put the result into docs")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    section = report(args.rounds, args.threads, args.caffe)
    print(section)
    if args.write:
        text = BENCHMARKS.read_text(encoding="utf-8")
        text = re.sub(r"## Recurrent layers\n.*?(?=^## |\Z)", "", text, flags=re.S | re.M).rstrip()
        BENCHMARKS.write_text(f"{text}\n\n{section}", encoding="utf-8")


if __name__ == "__main__":
    main()
