"""C files compiled for this processor when they are first needed, and kept for later."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...proto.folders import Cache

logger = logging.getLogger(__name__)

#: Set to 0 to compute by torch's operations alone.
VARIABLE = "CORTADO_NATIVE"
SOURCES = Path(__file__).parent / "kernels"
#: A kernel is compiled in a second or two; whatever takes longer than this does not work.
_PATIENCE_S = 120
#: The types of numbers that some kernels take, and how these are compiled for each.
NUMBERS = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC")
_FLOAT32 = (torch.float32,)
#: What a letter of a signature stands for: a tensor's address, an integer, a float, an array.
_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_long,
    "f": ctypes.c_float,
    "n": ctypes.POINTER(ctypes.c_long),
}

# Linux's call that lets a process use tiles, and what it is told (asm/prctl.h).
_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023
_TILE_DATA = 18

Function = Callable[..., None]

#: Whether kernels are called for what they take and keep, on tensors without memory.
_rehearsing = False


@cache
def function(
    library: str, name: str, signature: str, dtype: torch.dtype = torch.float32
) -> Function | None:
    """The C function ``name`` of ``kernels/<library>.c``; None where it cannot be compiled.

    ``signature`` has a letter for each argument: p a tensor (or its :func:`address`, or None), i a
    long, f a float, n longs. ``dtype`` is the type of the blobs' numbers, where the file leaves it
    open.
    """
    found = _found(library, name, signature, dtype)
    if found is None:
        return None

    def call(*arguments: Any) -> None:
        if not _rehearsing:
            found(*[x.data_ptr() if isinstance(x, Tensor) else x for x in arguments])

    return call


@cache
def figures(library: str, name: str, count: int, *given: int) -> tuple[int, ...]:
    """The ``count`` longs that the C function ``name`` answers to the longs ``given``."""
    found, answer = _found(library, name, "nn"), numbers(*[0] * count)
    assert found is not None  # who asks has seen to it
    found(numbers(*given), answer)
    return tuple(answer)


def _found(
    library: str, name: str, signature: str, dtype: torch.dtype = torch.float32
) -> Any | None:
    loaded = _load(library, dtype)
    if loaded is None:
        return None
    found = getattr(loaded, name)
    found.argtypes = [_TYPES[letter] for letter in signature]
    found.restype = None
    return found


def numbers(*values: int) -> ctypes.Array[ctypes.c_long]:
    """An argument for the letter n."""
    return (ctypes.c_long * len(values))(*values)


def address(tensor: Tensor | None, index: int = 0) -> int:
    """Where the float32 at ``index`` of the tensor's memory lies; 0 for what has no memory."""
    return 0 if tensor is None or _rehearsing else tensor.data_ptr() + 4 * index


@contextmanager
def rehearsal() -> Iterator[None]:
    """Kernels take part on fake tensors: they take and keep what they would, and compute nothing.

    Nothing but fake tensors may be used meanwhile.
    """
    global _rehearsing
    before, _rehearsing = _rehearsing, True
    try:
        yield
    finally:
        _rehearsing = before


def suits(*tensors: Tensor, dtypes: Collection[torch.dtype] | None = None) -> bool:
    """Whether kernels may compute on these tensors: float32 in the memory of the CPU, seen by
    nobody but this process (no compiler, no tensors without memory), and no autocast, which would
    have the operation in another type.

    With ``dtypes`` any of these will do, and autocast too: for operations whose type it leaves to
    their bottoms.
    """
    if torch.compiler.is_compiling():
        return False
    if dtypes is None:
        if torch.is_autocast_enabled("cpu"):
            return False
        dtypes = _FLOAT32
    if torch._C._len_torch_dispatch_stack() and not _rehearsing:
        return False  # something wants to see each operation
    for tensor in tensors:
        if tensor.dtype not in dtypes or tensor.device.type != "cpu":
            return False
        if _rehearsing:
            continue
        if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
            return False
    return True


@cache
def has_tiles() -> bool:
    """Whether this process may use AMX, tiles of bfloat16, for which Linux wants to be asked."""
    can = torch.cpu.get_capabilities()
    if not (can.get("amx_bf16") and can.get("avx512_bf16") and sys.platform.startswith("linux")):
        return False
    try:
        done: int = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA)
    except (OSError, AttributeError):
        return False
    return done == 0


def obstacle() -> str:
    """Why nothing can be compiled here; empty where something can."""
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE} is 0"
    if not sys.platform.startswith("linux"):
        return "they are made for Linux only"
    return "" if compiler() else f"no C compiler ({_compiler_name()}) is here"


def compiler() -> str | None:
    """Path of the C compiler, if there is one."""
    return shutil.which(_compiler_name())


def _compiler_name() -> str:
    return os.environ.get("CC", "cc")


@cache
def _load(library: str, dtype: torch.dtype = torch.float32) -> ctypes.CDLL | None:
    if reason := obstacle():
        logger.info("%s runs by torch's operations: %s", library, reason)
        return None
    try:
        return ctypes.CDLL(str(_compiled(library, compiler() or "", NUMBERS[dtype])))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        logger.info("%s.c cannot be compiled, torch's operations do it: %s", library, said.strip())
        return None


def _compiled(library: str, program: str, defined: Sequence[str]) -> Path:
    """The compiled file; its name tells the sources, the flags and the processor apart."""
    source = SOURCES / f"{library}.c"
    flags = [*_FLAGS, *defined]
    if platform.machine() == "x86_64" and torch.cpu.get_capabilities().get("avx512_f"):
        flags.append("-mprefer-vector-width=512")
    if torch.cpu.get_capabilities().get("amx_bf16") and not has_tiles():
        flags.append("-mno-amx-bf16")
    known = [*flags, _version(program), platform.machine(), repr(torch.cpu.get_capabilities())]
    texts = [each.read_text() for each in (source, *sorted(SOURCES.glob("*.h")))]
    digest = hashlib.sha256("\0".join([*known, *texts]).encode()).hexdigest()
    target = Cache.NATIVE.make() / f"{library}-{digest[:20]}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        logger.info("compiling %s for this processor, once", source.name)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            object_file, built = Path(folder, "built.o"), Path(folder, "built.so")
            _run(program, *flags, "-c", str(source), "-o", str(object_file))
            # Without -fopenmp, so that its functions are found in the library that torch brings,
            # and torch's threads are ours.
            _run(program, "-shared", str(object_file), "-o", str(built), "-lm")
            built.replace(target)  # at once, whoever else compiles it now
    return target


@cache
def _version(program: str) -> str:
    return _run(program, "--version")


def _run(*command: str) -> str:
    done = subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, timeout=_PATIENCE_S
    )
    return done.stdout
