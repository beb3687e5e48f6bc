"""Which device a command runs on, from its ``--gpu`` flag; what devices there are."""

from __future__ import annotations

import os
import platform

from ..proto.errors import ConfigError, ResourceError
from .flags import comma_list

GIB = 1 << 30


def count() -> int:
    """How many CUDA devices torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def ids(flag: str) -> list[int]:
    """The device ids that ``--gpu`` names; ResourceError if one of them is not there."""
    import torch

    present = count()
    if present == 0:
        reason = (
            "torch was installed without CUDA"
            if torch.version.cuda is None
            else f"torch (CUDA {torch.version.cuda}) finds no GPU or no driver that fits"
        )
        raise ResourceError(
            f"--gpu {flag}: no GPU on this machine: {reason}; leave --gpu out for the CPU"
        )
    if flag == "all":
        return list(range(present))
    words = comma_list(flag)
    if not words or not all(word.isdigit() for word in words):
        raise ConfigError(f"--gpu must be a comma list of device ids or 'all', got {flag!r}")
    for word in words:
        if int(word) >= present:
            raise ResourceError(f"--gpu {word}: this machine has GPUs 0 to {present - 1}")
    return [int(word) for word in words]


def first(flag: str) -> str:
    """The torch device of ``test`` and ``time``: the first id of ``--gpu``, else the CPU."""
    return f"cuda:{ids(flag)[0]}" if flag else "cpu"


def for_training(flag: str) -> str | None:
    """The torch device that ``--gpu`` asks for; None leaves the choice to the solver's mode."""
    if not flag:
        return None
    chosen = ids(flag)
    if len(chosen) > 1:
        # As Caffe does, which takes the mean of what its GPUs compute from a batch each.
        raise ConfigError(
            f"--gpu {flag}: training runs on one GPU, so name one (--gpu {chosen[0]}); with "
            f"{len(chosen)} times the iter_size (--set iter_size={len(chosen)} where the solver "
            f"has none) its updates are those of {len(chosen)} GPUs"
        )
    return f"cuda:{chosen[0]}"


def describe_cpu() -> dict[str, str]:
    """Facts about the processor, as rows to print."""
    import torch

    from ..layers.native import library

    obstacle = library.obstacle()
    rows = {
        "Device": "cpu",
        "Name": _processor_name(),
        "Architecture": platform.machine(),
        "Cores": str(os.cpu_count()),
        "Threads used by torch": str(torch.get_num_threads()),
        "Vector instructions": torch.backends.cpu.get_cpu_capability(),
        "Compiled kernels": f"no: {obstacle}" if obstacle else f"by {library.compiler()}",
    }
    memory = _memory()
    if memory:
        rows["Total memory"] = f"{memory / GIB:.1f} GiB"
    return rows | {"torch": torch.__version__}


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def describe_gpu(index: int) -> dict[str, str]:
    """Facts about the CUDA device ``index``, as rows to print."""
    import torch

    found = torch.cuda.get_device_properties(index)
    return {
        "Device id": str(index),
        "Name": found.name,
        "Compute capability": f"{found.major}.{found.minor}",
        "Total global memory": f"{found.total_memory / GIB:.1f} GiB",
        "Number of multiprocessors": str(found.multi_processor_count),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda})",
    }


def announcement(name: str) -> str:
    """The log line that says where a command runs."""
    if not name.startswith("cuda"):
        return "Use CPU."
    return f"Using GPUs {name.partition(':')[2] or 0}"
