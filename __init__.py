"""Cortado: train neural networks from prototxt files, on PyTorch.

The names below load on first use, so that ``import cortado`` and ``cortado --help`` stay quick and
never import torch by themselves.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .proto import schemes as _schemes

__version__ = "0.1.0"

# Public name -> the module that defines it.
_PUBLIC = {
    "Net": ".netdef",
    "Solver": ".solvers",
    "CortadoError": ".proto.errors",
    # For layers of one's own (docs/own_layer.md).
    "Context": ".layers.base",
    "Filler": ".layers.fillers",
    "Layer": ".layers.base",
    "LayerError": ".proto.errors",
    "register": ".layers.registry",
    "zoo": ".model_zoo",
}

__all__ = [
    "Context",
    "CortadoError",
    "Filler",
    "Layer",
    "LayerError",
    "Net",
    "Solver",
    "__version__",
    "register",
    "zoo",
]

if TYPE_CHECKING:
    from .layers.base import Context, Layer
    from .layers.fillers import Filler
    from .layers.registry import register
    from .model_zoo import zoo
    from .netdef import Net
    from .proto.errors import CortadoError, LayerError
    from .solvers import Solver


# The rooms that read weights lie below the zoo and know only that somebody opens its names.
_schemes.register("zoo", lambda name: import_module(".model_zoo", __name__).zoo.open_weights(name))


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
