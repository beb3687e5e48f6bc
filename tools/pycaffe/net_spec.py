"""Nets written in Python: ``L.Convolution(bottom, num_output=20)`` makes a layer and its top.

``L`` (:data:`layers`) makes layers of any type, ``P`` (:data:`params`) has the constants of their
messages. A :class:`NetSpec` gives names to tops; without one, tops are numbered by layer type.
``L.Block("residual", bottom, num_output=20)`` uses a block of the short form (docs/blocks.md) that
the NetSpec includes, or that a :class:`BlockSpec` defines.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...proto import caffe_pb2
from ...proto.text import to_text
from .errors import caffe_errors
from .functions import (
    Block,
    Bottom,
    Function,
    Names,
    Top,
    assign_proto,
    expanded,
    param_name_dict,
    to_proto,
    write,
)
from .short_form import Header, written_fields

__all__ = [
    "BlockSpec",
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "assign_proto",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]


class NetSpec:
    """Tops by name: ``n.conv1 = L.Convolution(n.data, ...)`` names layer and blob.

    ``include`` names files of blocks, found in ``folder`` or in the library; ``variables`` are the
    net's own, for ``Verbatim("$width")``; ``blocks`` defines further blocks.
    """

    def __init__(
        self,
        include: str | Iterable[str] = (),
        variables: Mapping[str, Any] | None = None,
        blocks: Iterable[BlockSpec] = (),
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        header = Header(include, variables, folder)
        with caffe_errors():
            for block in blocks:
                header = header.extended(block._definition(header))
        super().__setattr__("tops", OrderedDict())
        super().__setattr__("_header", header)

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "tops" or name.startswith("__"):
            raise AttributeError(name)  # asked for while a copy is being made
        return self.tops[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self.tops[key] = value

    def __getitem__(self, item: str) -> Any:
        return self.tops[item]

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The plain net of all layers that the named tops need; RuntimeError for faults in blocks
        and their uses."""
        return expanded(self.tops.values(), self._names(), self._header)

    def to_text(self) -> str:
        """The net as prototxt; in the short form if it includes, defines or uses anything of it."""
        with caffe_errors():
            script = write(self.tops.values(), self._names(), self._header)
        if script.is_short:
            return script.text()
        return to_text(caffe_pb2.NetParameter(layer=script.values()))

    def _names(self) -> Names:
        return {top: name for name, top in self.tops.items()}


class BlockSpec(NetSpec):
    """A block written in Python: its bottoms are there from the start, ``top`` says which of the
    tops come out (none: the last).

    ``b = BlockSpec("unit", bottom="x", num_output=required, kernel=3)`` has the two parameters
    ``$num_output`` and ``$kernel``.
    """

    def __init__(
        self,
        block_name: str,
        /,
        bottom: str | Iterable[str] = (),
        top: str | Iterable[str] = (),
        **parameters: Any,
    ) -> None:
        super().__init__()
        bottoms = [bottom] if isinstance(bottom, str) else list(bottom)
        tops = [top] if isinstance(top, str) else list(top)
        head = [written_fields({"name": block_name})]
        head += [written_fields({"bottom": each}) for each in bottoms]
        head += [written_fields({"top": each}) for each in tops]
        if parameters:
            head.append(written_fields({"with": parameters}))
        object.__setattr__(self, "_head", head)
        for name in bottoms:
            self.tops[name] = Bottom(name, (), {}).tops[0]

    def _definition(self, header: Header) -> str:
        """``block { ... }``, in a file that begins with ``header``."""
        body = write(self.tops.values(), self._names(), header).body()
        lines = "".join(f"  {line}\n" for line in [*self._head, *body.splitlines()])
        return f"block {{\n{lines}}}\n"


class Layers:
    """Makes a function for each layer type: it takes tops and fields, and gives its tops (one, a
    tuple, or, with ``ntop=0``, the :class:`Function`)."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def make(*args: Any, **kwargs: Any) -> Any:
            return _result(Function(name, args, kwargs))

        return make

    def Block(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """A use of the block ``name``."""
        return _result(Block(name, args, kwargs))


def _result(function: Function) -> Any:
    if function.ntop == 0:
        return function
    return function.tops[0] if function.ntop == 1 else function.tops


class _Constants:
    """The constants of one message type."""

    def __init__(self, name: str) -> None:
        self._message = getattr(caffe_pb2, f"{name}Parameter")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


class Parameters:
    """``Pooling.MAX`` and its kind: the constants of layers' messages."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Constants(name)


layers = Layers()
params = Parameters()
