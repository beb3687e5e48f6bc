"""Cost of one update of ResNet-50's 161 parameters against torch's own optimiser of the same rule.

    python scripts/bench_update.py [--device cuda] [--rounds 31] [--rule SGD ...]

Both are timed in turns in one process, so that drift of the machine hits both; the figure is the
median of the ratios of neighbouring rounds, with its quartiles. On the CPU one thread runs and its
own time is taken, which other programs disturb less. torch runs fused where it has a fused kernel
for the rule and the device, otherwise foreach.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.solvers.update import Updater


@dataclass
class Parameter:
    """Enough of a net's parameter for the updater."""

    tensor: torch.Tensor
    name: str = "w"
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    learnable: bool = True


#: Rounds after which gradients are drawn anew.
REFRESH = 6
#: Stages of ResNet-50: blocks, width, output channels.
STAGES = ((3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048))


def resnet50_shapes() -> list[tuple[int, ...]]:
    """The shapes of ResNet-50's 161 learned parameters: 25.6 million numbers."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for blocks, width, out in STAGES:
        for block in range(blocks):
            shapes += [(width, channels, 1, 1), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
            shapes += [(out, width, 1, 1), (out,), (out,)]
            if block == 0:
                shapes += [(out, channels, 1, 1), (out,), (out,)]
            channels = out
    return [*shapes, (1000, 2048), (1000,)]


def optimisers(decay: float) -> dict[str, tuple[dict, Callable[..., torch.optim.Optimizer], dict]]:
    """For each rule: solver fields, torch's class and its arguments."""
    optim = torch.optim
    moments = {"momentum": 0.9, "momentum2": 0.999}
    common = {"lr": 0.01, "weight_decay": decay}
    return {
        "SGD": ({"momentum": 0.9}, optim.SGD, {"momentum": 0.9, **common}),
        "Nesterov": ({"momentum": 0.9}, optim.SGD, {"momentum": 0.9, "nesterov": True, **common}),
        "AdaGrad": ({}, optim.Adagrad, common),
        "RMSProp": ({}, optim.RMSprop, common),
        "RMSPropMomentum": ({"momentum": 0.9}, optim.RMSprop, {"momentum": 0.9, **common}),
        "AdaDelta": ({"momentum": 0.9}, optim.Adadelta, common),
        "Adam": (moments, optim.Adam, common),
        "AdamW": (moments, optim.AdamW, common),
        "NAdam": (moments, optim.NAdam, common),
        "RAdam": (moments, optim.RAdam, common),
    }


def fastest(kind: Callable[..., torch.optim.Optimizer], tensors: list, arguments: dict):
    """torch's optimiser, fused if it can be, otherwise foreach."""
    try:
        return kind(tensors, fused=True, **arguments), "fused"
    except (TypeError, RuntimeError):
        return kind(tensors, foreach=True, **arguments), "foreach"


def parameters(device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    tensors = [torch.randn(shape, device=device) * 0.05 for shape in resnet50_shapes()]
    for tensor in tensors:
        tensor.requires_grad_()
        tensor.grad = torch.randn_like(tensor) * 0.01
    return tensors


def refresh(tensors: list[torch.Tensor]) -> None:
    """New gradients: rules may use them as scratch."""
    for tensor in tensors:
        assert tensor.grad is not None
        tensor.grad.normal_(0, 0.01)


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        began = time.thread_time()
        work()
        return time.thread_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(rule: str, device: str, rounds: int, decay: float) -> None:
    fields, kind, arguments = optimisers(decay)[rule]
    solver = SolverParameter(type=rule, base_lr=0.01, weight_decay=decay, **fields)
    mine, others = parameters(device), parameters(device)
    ours = Updater([Parameter(tensor) for tensor in mine], solver)  # type: ignore[misc]
    theirs, form = fastest(kind, others, arguments)
    works = [lambda: ours.update(0.01, 5), theirs.step]
    times: list[list[float]] = [[], []]
    for number in range(rounds + 2):
        order = (0, 1) if number % 2 else (1, 0)
        if number % REFRESH == 0:
            refresh([*mine, *others])
        taken = {which: seconds(works[which], device) for which in order}
        if number >= 2:
            for which in order:
                times[which].append(taken[which])
    low, ratio, high = statistics.quantiles(
        (a / b for a, b in zip(*times, strict=True)), n=4, method="inclusive"
    )
    medians = [statistics.median(each) * 1e3 for each in times]
    print(
        f"{rule:15} {device}  ours {medians[0]:7.2f} ms  torch {form:7} {medians[1]:7.2f} ms  "
        f"ratio {ratio:.2f} ({low:.2f} to {high:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--decay", type=float, default=1e-4)
    parser.add_argument("--rule", nargs="*", default=list(optimisers(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, decay {arguments.decay}")
    for rule in arguments.rule:
        measure(rule, arguments.device, arguments.rounds, arguments.decay)


if __name__ == "__main__":
    main()
