"""The names under which scripts import this package: ``caffe`` and what is in it."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_PACKAGE = __package__ or ""
#: Modules of this package that a script may import by name.
_SUBMODULES = ("io", "net_spec", "classifier", "detector", "draw", "coord_map", "proto")


def install() -> ModuleType:
    """Make ``import caffe`` and imports from it give this package; returns it."""
    package = import_module(_PACKAGE)
    sys.modules["caffe"] = package
    # What is compiled in Caffe, and what its Python part adds to that, is one module here.
    sys.modules["caffe.pycaffe"] = sys.modules["caffe._caffe"] = package
    for name in _SUBMODULES:
        sys.modules[f"caffe.{name}"] = import_module(f"{_PACKAGE}.{name}")
    sys.modules["caffe.proto.caffe_pb2"] = sys.modules["caffe.proto"].caffe_pb2
    for name in ("layers", "params"):
        pseudo = ModuleType(f"caffe.{name}", "Layers and parameters made on demand.")
        pseudo.__getattr__ = getattr(package, name).__getattr__  # type: ignore[method-assign]
        sys.modules[f"caffe.{name}"] = pseudo
    return package


def offer_caffe() -> None:
    """Install where no other ``caffe`` can be imported: Python layers import it."""
    present = sys.modules.get("caffe")
    if present is None:
        if find_spec("caffe") is None:
            install()
    elif present is not sys.modules.get(_PACKAGE) and getattr(present, "__spec__", None) is None:
        install()  # the stand-in with nothing but Layer
