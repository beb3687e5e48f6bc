"""Nets written in Python: ``L.Convolution(bottom, num_output=20)`` makes a layer and its top.

``L`` (:data:`layers`) makes layers of any type, ``P`` (:data:`params`) has the constants of their
messages. A :class:`NetSpec` gives names to tops; without one, tops are numbered by layer type.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from ...proto import caffe_pb2

#: What names tops and functions have, by object.
Names = dict[Any, str]


def param_name_dict() -> dict[str, str]:
    """For each message type, without its ``Parameter``, the field of a layer that holds it, without
    its ``_param``: ``{"Convolution": "convolution", ...}``."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in fields
        if field.name.endswith("_param") and field.message_type is not None
    }


_PARAM_NAMES = param_name_dict()


def assign_proto(proto: Message, name: str, val: Any) -> None:
    """Set field ``name`` of ``proto`` from Python values.

    A dict fills a message, a list a repeated field; a single value for a repeated field becomes its
    only one. AttributeError if there is no such field.
    """
    field = proto.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise AttributeError(f"{proto.DESCRIPTOR.name} has no field {name!r}")
    if field.is_repeated:
        values = val if isinstance(val, list | tuple) else [val]
        target = getattr(proto, name)
        for value in values:
            if isinstance(value, Mapping):
                _fill(target.add(), value)
            else:
                target.append(_scalar(value))
    elif isinstance(val, Mapping):
        message = getattr(proto, name)
        message.SetInParent()
        _fill(message, val)
    elif field.message_type is not None:
        getattr(proto, name).CopyFrom(val)
    else:
        setattr(proto, name, _scalar(val))


def _fill(message: Message, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        assign_proto(message, name, value)


def _scalar(value: Any) -> Any:
    """``value`` as protobuf takes it: numpy's numbers become Python's."""
    return value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value


class Top:
    """One output of a layer: number ``n`` of function ``fn``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net of all layers that this top needs."""
        return to_proto(self)

    def _to_proto(
        self, layers: OrderedDict[Function, Any], names: Names, autonames: Counter[str]
    ) -> None:
        self.fn._to_proto(layers, names, autonames)


class Function:
    """A layer: its type, its inputs (tops of others) and what its messages say.

    ``ntop`` (1) is how many tops it has, ``in_place`` that they carry the bottoms' names.
    """

    def __init__(self, type_name: str, inputs: tuple[Any, ...], params: dict[str, Any]) -> None:
        self.type_name = type_name
        for index, each in enumerate(inputs):
            if not isinstance(each, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(each)})")
        self.inputs: tuple[Top, ...] = inputs
        self.params = params
        self.ntop: int = params.pop("ntop", 1)
        self.in_place: bool = params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _get_name(self, names: Names, autonames: Counter[str]) -> str:
        """The layer's name: that of its first top."""
        if self not in names:
            names[self] = (
                self._get_top_name(self.tops[0], names, autonames)
                if self.tops
                else self._number(autonames)
            )
        return names[self]

    def _get_top_name(self, top: Top, names: Names, autonames: Counter[str]) -> str:
        if top not in names:
            names[top] = self._number(autonames)
        return names[top]

    def _number(self, autonames: Counter[str]) -> str:
        autonames[self.type_name] += 1
        return f"{self.type_name}{autonames[self.type_name]}"

    def _to_proto(
        self, layers: OrderedDict[Function, Any], names: Names, autonames: Counter[str]
    ) -> None:
        """Add this layer to ``layers``, after those that it needs."""
        if self in layers:
            return
        bottoms = []
        for each in self.inputs:
            each._to_proto(layers, names, autonames)
            bottoms.append(layers[each.fn].top[each.n])
        layer = caffe_pb2.LayerParameter(type=self.type_name, bottom=bottoms)
        if self.in_place:
            layer.top.extend(bottoms)
        else:
            layer.top.extend(self._get_top_name(top, names, autonames) for top in self.tops)
        layer.name = self._get_name(names, autonames)
        for name, value in self.params.items():
            assign_proto(*self._place(layer, name), value)
        layers[self] = layer

    def _place(self, layer: caffe_pb2.LayerParameter, name: str) -> tuple[Message, str]:
        """The message that has field ``name``: the type's own if it can, else the layer."""
        own = _PARAM_NAMES.get(self.type_name)
        if own is not None and not name.endswith("param"):
            message = getattr(layer, f"{own}_param")
            if name in message.DESCRIPTOR.fields_by_name:
                return message, name
        return layer, name


class NetSpec:
    """Tops by name: ``n.conv1 = L.Convolution(n.data, ...)`` names layer and blob."""

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

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
        """The net of all layers that the named tops need."""
        names: Names = {top: name for name, top in self.tops.items()}
        return _net(self.tops.values(), names)


def to_proto(*tops: Top) -> caffe_pb2.NetParameter:
    """The net of all layers that ``tops`` need."""
    return _net(tops, {})


def _net(tops: Any, names: Names) -> caffe_pb2.NetParameter:
    layers: OrderedDict[Function, caffe_pb2.LayerParameter] = OrderedDict()
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(layers, names, autonames)
    return caffe_pb2.NetParameter(layer=layers.values())


class Layers:
    """Makes a function for each layer type: it takes tops and fields, and gives its tops (one, a
    tuple, or, with ``ntop=0``, the :class:`Function`)."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def make(*args: Any, **kwargs: Any) -> Any:
            function = Function(name, args, kwargs)
            if function.ntop == 0:
                return function
            return function.tops[0] if function.ntop == 1 else function.tops

        return make


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
