"""How a net is run: settings that change its speed and memory, never what it computes.

Only ``precision`` other than FP32 changes results, within the rounding of that precision.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..proto.errors import ConfigError, ResourceError

FP32, TF32, BF16, FP16, AUTO = "FP32", "TF32", "BF16", "FP16", "AUTO"
PRECISIONS = (FP32, TF32, BF16, FP16, AUTO)
MEMORY_FORMATS = ("BEST", "CHANNELS_LAST", "CONTIGUOUS")
_DTYPES = {BF16: torch.bfloat16, FP16: torch.float16}


@dataclass(frozen=True, slots=True)
class Execution:
    """Settings of one net.

    ``precision``: FP32; TF32 (a GPU's tensor cores round the factors of products to 10 bits); BF16
    or FP16 by autocast, with float32 weights; AUTO, the fastest that the device does natively.
    ``memory_format``: BEST, CHANNELS_LAST or CONTIGUOUS. ``optimize``: run fused steps.
    ``recompute``: patterns of layers whose tops are computed again in backward instead of kept;
    AUTO stands for segments of about equal size. ``compile``: run through torch.compile,
    with ``cuda_graphs`` in its mode that records CUDA graphs.
    """

    precision: str = FP32
    memory_format: str = "BEST"
    optimize: bool = True
    recompute: tuple[str, ...] = ()
    compile: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("precision", self.precision, PRECISIONS),
            ("memory_format", self.memory_format, MEMORY_FORMATS),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} must be {' or '.join(allowed)}, got {value!r}")

    def resolved(self, device: torch.device) -> Execution:
        """With AUTO precision settled for ``device``; ResourceError for one it cannot do."""
        if self.precision == AUTO:
            return replace(self, precision=fastest_precision(device))
        if self.precision == TF32 and device.type != "cuda":
            return replace(self, precision=FP32)  # other devices have no such products
        if self.precision == FP16 and device.type == "cpu" and not _cpu_has("amx_fp16"):
            raise ResourceError(
                "precision FP16 has no fast arithmetic on this processor; take BF16 or FP32"
            )
        return self

    @property
    def reduced(self) -> bool:
        """Whether products run in less than float32, on tensor cores where there are any."""
        return self.precision in (TF32, BF16, FP16)

    @property
    def dtype(self) -> torch.dtype:
        """The type that products are computed in (TF32 is float32 to whoever looks at it)."""
        return _DTYPES.get(self.precision, torch.float32)

    @contextlib.contextmanager
    def context(self, device: torch.device) -> Iterator[None]:
        """Under which passes run: autocast, and on a GPU whether products may be of TF32.

        The latter is a setting of the process and stays, because backward looks at it as well.
        Torch's own default lets convolutions and recurrent layers round.
        """
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = self.precision == TF32
            torch.backends.cudnn.allow_tf32 = self.precision == TF32
        if self.precision in _DTYPES:
            with torch.autocast(device.type, _DTYPES[self.precision]):
                yield
            return
        yield


def fastest_precision(device: torch.device) -> str:
    """BF16 where the device multiplies it natively, else TF32 on a GPU that has it, else FP32."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return BF16
        return FP16 if torch.cuda.get_device_capability(device) >= (7, 0) else FP32
    return BF16 if _cpu_has("avx512_bf16") or _cpu_has("amx_bf16") else FP32


def _cpu_has(feature: str) -> bool:
    return bool(torch.cpu.get_capabilities().get(feature, False))


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the next iteration takes just that again.

    By default glibc gives each large block back to the system at once, and every iteration pays for
    fresh zeroed pages. Changes the whole process; does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def prepared_process(device: torch.device | str, threads: int = 0) -> Iterator[None]:
    """For the time of a block, settings of the process that passes profit from.

    On the CPU denormal numbers count as zero (they are many times slower) and freed memory is kept;
    on CUDA cuDNN looks for its fastest algorithms unless they must be deterministic. ``threads`` is
    the number that one operation may use, 0 leaves it as it is.
    """
    before, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        keep_freed_memory()
        torch.set_flush_denormal(True)
    else:
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if on_cpu:
            torch.set_flush_denormal(False)
        torch.backends.cudnn.benchmark = benchmark
        if threads:
            torch.set_num_threads(before)
