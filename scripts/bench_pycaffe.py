"""What the Python interface for Caffe's scripts costs: ``net.forward()`` against the module's own.

    python scripts/bench_pycaffe.py [--batch 10] [--runs 21]

Both run on the same parameters, in turn and in changing order, for the zoo's AlexNet, without and
with what backward needs; times are of the processor, on one thread. Prints medians and the median
of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import cortado
from cortado.netdef import Net
from cortado.netdef.deploy import deploy
from cortado.proto.files import read_net
from cortado.tools import pycaffe as caffe

ALEXNET = Path(cortado.__file__).resolve().parent / "model_zoo" / "bvlc_alexnet" / "net.prototxt"


def seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--runs", type=int, default=21)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for gradients in (False, True):
        definition = deploy(
            read_net(ALEXNET),
            {"data": (options.batch, 3, 227, 227)},
        )
        definition.force_backward = gradients
        net = Net(definition, "TEST")
        facade = caffe.Net.over(net)
        inputs = {name: torch.rand(shape) for name, shape in net.inputs.items()}
        for name, values in inputs.items():
            facade.blobs[name].data[...] = values.numpy()

        def module(net: Net = net, inputs: dict[str, torch.Tensor] = inputs) -> None:
            with torch.set_grad_enabled(net.definition.force_backward):
                net(**inputs)

        pairs: list[tuple[float, float]] = []
        for index in range(options.runs):
            if index % 2:
                own = seconds(module)
                pairs.append((own, seconds(facade.forward)))
            else:
                through = seconds(facade.forward)
                pairs.append((seconds(module), through))
        ratio = statistics.median(b / a for a, b in pairs)
        own, through = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
        title = "with gradients" if gradients else "forward only"
        print(f"{title}: module {own:.1f} ms, pycaffe {through:.1f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
