"""The table of layer types: each layer class and data source enters under its prototxt name."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from ..proto.errors import LayerError, nearest

if TYPE_CHECKING:
    from .base import Layer
    from .source import DataSource

T = TypeVar("T", bound="type[Layer] | type[DataSource]")

_classes: dict[str, type[Layer] | type[DataSource]] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator: make a layer or data source available in prototxt as ``type: "<name>"``."""

    def enter(cls: T) -> T:
        known = _classes.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"layer type {name!r} is already registered by {known.__module__}")
        cls.type = name
        _classes[name] = cls
        return cls

    return enter


@cache
def _load_all() -> None:
    """Import every module of this package once, so that each class registers itself."""
    package = __name__.rpartition(".")[0]
    for folder in (package, f"{package}.data"):
        for module in pkgutil.iter_modules(import_module(folder).__path__):
            import_module(f"{folder}.{module.name}")


def find(name: str) -> type[Layer] | type[DataSource]:
    """The class registered as ``name``; a LayerError with the nearest spelling if there is none."""
    if name not in _classes:
        _load_all()
    if name not in _classes:
        raise LayerError(f"unknown layer type {name!r}{nearest(name, _classes)}", "type")
    return _classes[name]


def layer_types() -> Iterator[str]:
    """All registered type names, sorted."""
    _load_all()
    return iter(sorted(_classes))
