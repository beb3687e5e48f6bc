"""A process with one contender: reads orders, runs steps, answers with times.

Each contender has a process of its own, so that allocator, threads and peak memory of one do not
touch another. Orders and answers are JSON, one a line.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

MIB = 1 << 20


def reset_peak(device: str) -> None:
    """Start a new measurement of peak memory."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif os.path.exists("/proc/self/clear_refs"):
        with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
            control.write("5")


def peak(device: str) -> float:
    """MiB at the peak: resident memory of the process, or allocated memory of the GPU."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
        return int(found.group(1)) / 1024 if found else 0.0
    except OSError:
        return 0.0


def timed(contender: Any, count: int, device: str, clock: str) -> float:
    """Milliseconds a step over ``count`` steps."""
    import torch

    read = time.process_time if clock == "cpu" else time.perf_counter
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    began = read()
    contender.run(count)
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return (read() - began) * 1000 / count


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints goes to stderr
    import torch

    from .contenders import Course, enter

    line = sys.stdin.readline()
    if not line:  # called off
        return
    order = json.loads(line)
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    settings = tuple(sorted(order["course"].pop("settings", {}).items()))
    course = Course(**order["course"], settings=settings)
    contender = enter(order["name"], course)
    first = {"loss": contender.loss()}
    if hasattr(contender, "macs"):
        first["macs"] = contender.macs()
    contender.run(order["warmup"])
    reset_peak(course.device)
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        milliseconds = timed(contender, int(line), course.device, order["clock"])
        answer = {"ms": milliseconds, "peak": peak(course.device)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
