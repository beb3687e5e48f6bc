"""From a net definition to a torch module: phases, graph, shapes, shared parameters, the net."""

from __future__ import annotations

from .net import Net
from .parameters import ParamRef

__all__ = ["Net", "ParamRef"]
