"""Nets through torch.compile, and what it keeps for the next run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..proto.folders import Cache
from .execution import Execution

#: Where torch's compiler keeps what it made; by default in a temporary folder.
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compiled(
    function: Callable[..., Any], execution: Execution, frozen: bool = False
) -> Callable[..., Any] | None:
    """``function``, which gives blobs and a loss, through torch.compile, if asked for; where that
    fails it runs as it is.

    What is compiled is kept in the folder ``compiled`` of CORTADO_HOME, unless the environment
    names another. ``frozen``: in passes without gradients, weights become constants that the
    compiler lays out as it likes.
    """
    if not execution.compile:
        return None
    _keep_what_is_compiled()
    from torch._inductor import config

    fast = torch.compile(function, mode="reduce-overhead" if execution.cuda_graphs else None)
    failed = False

    def run(*arguments: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                with config.patch(freezing=frozen):
                    found = fast(*arguments)
                return _kept(*found) if execution.cuda_graphs else found
            except Exception as error:  # the compilers behind it raise many kinds
                failed = True
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(f"torch.compile failed, running without it: {reason}", stacklevel=2)
        return function(*arguments)

    return run


def _kept(blobs: Mapping[str, Tensor], loss: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Copies of what a recorded graph gave: the next run of the graph writes there again."""
    return {name: blob.clone() for name, blob in blobs.items()}, loss.clone()


def _keep_what_is_compiled() -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Torch writes its default, in a temporary folder, into the environment when it first looks.
    usual = os.path.abspath(default_cache_dir())
    if os.environ.get(CACHE_VARIABLE, usual) == usual:
        os.environ[CACHE_VARIABLE] = str(Cache.COMPILED.make())
