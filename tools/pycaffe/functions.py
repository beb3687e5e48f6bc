"""Layers, and uses of blocks, as objects of a Python script; a net is written from its tops."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from ...proto import caffe_pb2
from .errors import caffe_errors
from .short_form import Header, arguments, is_short, written_fields, written_layer

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

    def _to_proto(self, layers: Script, names: Names, autonames: Counter[str]) -> None:
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

    def _to_proto(self, layers: Script, names: Names, autonames: Counter[str]) -> None:
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
        layers[self] = layer
        self._write(layers, layer)

    def _write(self, layers: Script, layer: caffe_pb2.LayerParameter) -> None:
        """Complete ``layer``, which has its name, type, bottoms and tops."""
        own: dict[str, Any] = {}
        more: dict[str, Any] = {}
        short = is_short(self.params)
        for name, value in self.params.items():
            message, field = self._place(layer, name)
            if short and message is not layer:
                own[field] = value
            elif is_short(value):
                more[field] = value
            else:
                assign_proto(message, field, value)
        if own:
            more[f"{_PARAM_NAMES[self.type_name]}_param"] = own
        if more:
            layers.texts[self] = written_layer(layer, [written_fields({k: more[k]}) for k in more])

    def _place(self, layer: caffe_pb2.LayerParameter, name: str) -> tuple[Message, str]:
        """The message that has field ``name``: the type's own if it can, else the layer."""
        own = _PARAM_NAMES.get(self.type_name)
        if own is not None and not name.endswith("param"):
            message = getattr(layer, f"{own}_param")
            if name in message.DESCRIPTOR.fields_by_name:
                return message, name
        return layer, name


class Block(Function):
    """A use of a block: ``name``, ``include`` and ``exclude`` are the layer's, all other values the
    block's.

    The block's tops are given the names of this function's; a block that declares none has one, the
    blob it makes last. ``name=""`` leaves the names inside as they are written.
    """

    def __init__(self, type_name: str, inputs: tuple[Any, ...], params: dict[str, Any]) -> None:
        super().__init__(type_name, inputs, params)
        self.fields = {
            name: self.params.pop(name) for name in ("name", "include", "exclude") if name in params
        }

    def _write(self, layers: Script, layer: caffe_pb2.LayerParameter) -> None:
        header = layers.header
        definition = header.definition(self.type_name)
        if len(self.inputs) != len(definition.bottoms):
            raise TypeError(
                f"block {self.type_name!r} takes {len(definition.bottoms)} bottoms, "
                f"got {len(self.inputs)}"
            )
        for name, value in self.fields.items():
            assign_proto(layer, name, value)
        if not layer.name:
            layer.ClearField("name")
        asks = not definition.tops and self.ntop == 1
        if asks:
            layer.ClearField("top")
        given = arguments(self.params, definition)
        text = written_layer(layer, [f"with {{ {given} }}"] if given else [])
        layers.texts[self] = text
        if asks:
            layer.top.append(header.result(text))


class Bottom(Function):
    """What a block is given: a blob that no layer of its own makes."""

    def _write(self, layers: Script, layer: caffe_pb2.LayerParameter) -> None:
        layers.texts[self] = ""


class Script(OrderedDict[Function, caffe_pb2.LayerParameter]):
    """The layers of a net in order; those that need the short form have ``texts``."""

    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header
        self.texts: dict[Function, str] = {}

    @property
    def is_short(self) -> bool:
        return bool(self.header.text or self.texts)

    def text(self) -> str:
        """The whole file in the short form, which its first word makes it even without a header."""
        return (self.header.text or "with {}\n") + self.body()

    def body(self) -> str:
        """All layers in the short form."""
        texts = self.texts
        return "".join(
            texts[each] if each in texts else written_layer(layer) for each, layer in self.items()
        )


def write(tops: Any, names: Names, header: Header) -> Script:
    """All layers that ``tops`` need, in a file that begins with ``header``."""
    layers = Script(header)
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(layers, names, autonames)
    return layers


def to_proto(*tops: Top) -> caffe_pb2.NetParameter:
    """The net of all layers that ``tops`` need."""
    return expanded(tops, {}, Header())


def expanded(tops: Any, names: Names, header: Header) -> caffe_pb2.NetParameter:
    """The plain net of all layers that ``tops`` need, in a file that begins with ``header``."""
    with caffe_errors():
        script = write(tops, names, header)
        if script.is_short:
            return header.expand(script.text())
    return caffe_pb2.NetParameter(layer=script.values())
