"""What the machine can do: the rate of a large matrix product and of a plain convolution."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def ceiling(device: str = "cpu", precision: str = "FP32", clock: str = "wall") -> float:
    """GFLOP/s of the faster of a matrix product and a 3x3 convolution at ``precision``."""
    import torch

    from ...netdef.execution import Execution
    from .contenders import DTYPES

    with Execution(precision=precision).context(torch.device(device)):
        pass  # on a GPU that settles whether float32's products may be of TF32
    dtype = DTYPES.get(precision, torch.float32)
    size = 8192 if device.startswith("cuda") else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(8, 256, 28, 28, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    products = 2 * size**3
    convolutions = 2 * 8 * 28 * 28 * 256 * 256 * 9
    return (
        max(
            products / _seconds(lambda: a @ b, device, clock),
            convolutions / _seconds(lambda: torch.conv2d(x, w, padding=1), device, clock),
        )
        / 1e9
    )


def _seconds(work: Callable[[], object], device: str, clock: str) -> float:
    import torch

    read = time.process_time if clock == "cpu" else time.perf_counter

    def once() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        began = read()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return read() - began

    once()
    return statistics.median(once() for _ in range(7))
