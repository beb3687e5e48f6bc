"""The table of layer types: each layer class and data source enters under its prototxt name."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from ..proto.errors import LayerError, nearest

if TYPE_CHECKING:
    from .base import Arity, Layer
    from .source import DataSource

T = TypeVar("T", bound="type[Layer] | type[DataSource]")

_PACKAGE = __name__.partition(".")[0] + "."
_classes: dict[str, type[Layer] | type[DataSource]] = {}


#: Where an installed package offers layer types: the entry point's name is the type's.
ENTRY_POINTS = "cortado.layers"


def register(name: str) -> Callable[[T], T]:
    """Class decorator: make a layer or data source available in prototxt as ``type: "<name>"``.

    How many bottoms a layer has is seen from its ``forward`` where it does not declare it. Raises
    ValueError if another class has the name, and TypeError for a class of another kind.
    """

    def enter(cls: T) -> T:
        from .base import Layer
        from .source import DataSource

        if not (isinstance(cls, type) and issubclass(cls, Layer | DataSource)):
            raise TypeError(f"layer type {name!r} must be a subclass of cortado.Layer, got {cls}")
        if not cls.__module__.startswith(_PACKAGE):
            _load_all()
        known = _classes.get(name)
        # The same class again is its module imported anew.
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"layer type {name!r} is already registered by {known.__module__}")
        cls.type = name
        if issubclass(cls, Layer) and cls.bottoms is Layer.bottoms:
            cls.bottoms = _arity(cls.forward)
        _classes[name] = cls
        return cls

    return enter


def _arity(forward: Callable[..., Any]) -> Arity:
    """How many bottoms ``forward`` takes, by its arguments."""
    from .base import Arity

    arguments = list(inspect.signature(forward).parameters.values())[1:]
    positional = [each for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD]
    needed = [each for each in positional if each.default is each.empty]
    open_end = any(each.kind is each.VAR_POSITIONAL for each in arguments)
    return Arity(len(needed), None if open_end else len(positional))


@cache
def _load_all() -> None:
    """Import every module of this package once, so that each class registers itself."""
    package = __name__.rpartition(".")[0]
    for folder in (package, f"{package}.data"):
        for module in pkgutil.iter_modules(import_module(folder).__path__):
            import_module(f"{folder}.{module.name}")


@cache
def _offered() -> EntryPoints:
    """The layer types of installed packages; none of them is imported by looking."""
    return entry_points(group=ENTRY_POINTS)


def find(name: str) -> type[Layer] | type[DataSource]:
    """The class registered as ``name``; a LayerError with the nearest spelling if there is none.

    A type that an installed package offers is imported when it is first asked for.
    """
    if name not in _classes:
        _load_all()
    if name not in _classes:
        for point in _offered().select(name=name):
            _load(point)
    if name not in _classes:
        hint = nearest(name, [*_classes, *_offered().names])
        hint = hint or " (a layer of your own? name its module with --import or import:)"
        raise LayerError(f"unknown layer type {name!r}{hint}", "type")
    return _classes[name]


def _load(point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:  # whatever the package raises while it is imported
        raise LayerError(
            f"{point.value} offers layer type {point.name!r}, but cannot be imported: "
            f"{type(error).__name__}: {error}",
            "type",
        ) from error


def layer_types() -> Iterator[str]:
    """All registered type names, sorted."""
    _load_all()
    return iter(sorted(_classes))
