"""Input layers in place of data layers: their shapes, and the preprocessing that they record."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from ..layers.base import Context, Layer, Shape
from ..layers.registry import find
from ..layers.source import DataSource
from ..proto import caffe_pb2
from ..proto.caffe_pb2 import LayerParameter, NetParameter
from ..proto.errors import ConfigError, DataError, LayerError
from ..proto.positions import Document
from .state import LayerSpec, State, belongs

logger = logging.getLogger(__name__)

#: Parts of a data layer's preprocessing that a net in use needs as well.
_PREPROCESSING = (
    "scale", "crop_size", "mean_file", "mean_value", "force_color", "force_gray",
    "resize_height", "resize_width", "resize_side", "channel_order",
)  # fmt: skip
_RESIZING = ("new_height", "new_width", "is_color")


def without_data(
    document: Document[NetParameter],
    holding: Collection[str],
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> NetParameter:
    """The whole net with Input layers for its data, to hold the weights of the layers ``holding``.

    Nothing of the data is needed where ``shapes``, the net's own record of the preprocessing or the
    data layer tell the shape of a top. Tops that none of ``holding`` depends on (labels) go, with
    the layers that read them. The layers are taken as they are listed, whatever their rules.
    ConfigError for a shape that is needed and not known.
    """
    known = {
        each.blob: (each.channels, each.height, each.width)
        for each in document.message.preprocessing
    }
    specs = [
        LayerSpec(layer, node)
        for layer, node in zip(document.message.layer, document.nodes("layer"), strict=True)
    ]
    needed: set[str] = set()
    tops_needed: list[list[str]] = []
    for spec in reversed(specs):
        layer = spec.message
        tops = [blob for blob in layer.top if blob in needed]
        tops_needed.append(tops)
        needed.difference_update(layer.top)
        if tops or layer.name in holding:
            needed.update(layer.bottom)
    result = NetParameter()
    result.CopyFrom(document.message)
    del result.layer[:]
    made: set[str] = set()
    for spec, tops in zip(specs, reversed(tops_needed), strict=True):
        layer = spec.message
        can_run = made.issuperset(layer.bottom)
        made.difference_update(layer.top)
        if is_source(layer) and layer.type != "Input":
            if tops:
                result.layer.append(_input(spec, tops, shapes or {}, known))
            made.update(tops)
        elif can_run:
            result.layer.append(layer)
            made.update(layer.top)
    return result


def with_inputs(
    document: Document[NetParameter],
    state: State,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Document[NetParameter]:
    """The net with Input layers in place of the data layers of ``state``: of ``shapes`` where these
    tell them, else of the data's.

    For data that are not there the size of the images is that of ``crop_size`` or ``new_height``
    and ``new_width``, with 3 channels unless they are gray, and further tops are labels; a warning
    says so. ConfigError where the size is not known, and for ``shapes`` of what no data layer
    gives.
    """
    shapes = shapes or {}
    result = NetParameter()
    result.CopyFrom(document.message)
    specs = [
        LayerSpec(layer, node)
        for layer, node in zip(result.layer, document.nodes("layer"), strict=True)
        if is_source(layer) and belongs(state, layer)
    ]
    blobs = [blob for spec in specs for blob in spec.message.top]
    for unknown in shapes.keys() - set(blobs):
        raise ConfigError(f"shape of {unknown!r}: no data layer gives it, but {', '.join(blobs)}")
    for spec in specs:
        layer = spec.message
        made = LayerParameter(name=layer.name, type="Input", top=layer.top)
        made.include.extend(layer.include)
        made.exclude.extend(layer.exclude)
        for shape in _shapes(spec, shapes):
            made.input_param.shape.add(dim=shape)
        layer.CopyFrom(made)
    return Document(result, document.root, document.variables)


def _shapes(spec: LayerSpec, given: Mapping[str, Sequence[int]]) -> Sequence[Sequence[int]]:
    """The shapes of a data layer's tops: as ``given``, else of its data, else likely ones."""
    if not given.keys().isdisjoint(spec.message.top):
        return _likely_shapes(spec, given, "")
    try:
        return _opened_shapes(spec.message)
    except (LayerError, DataError) as error:
        return _likely_shapes(spec, given, str(error))


def _opened_shapes(layer: LayerParameter) -> Sequence[Shape]:
    """The shapes of a data layer's tops, for which its data are opened."""
    cls = class_of(layer)
    assert issubclass(cls, DataSource)
    source = cls.from_message(layer, Context(num_tops=len(layer.top), phase=caffe_pb2.TEST))
    source.close()
    return source.shapes


def _likely_shapes(
    spec: LayerSpec, given: Mapping[str, Sequence[int]], problem: str
) -> list[Sequence[int]]:
    """Shapes of the tops of a data layer whose data are not there, as far as ``given``."""
    layer = spec.message
    first, *labels = layer.top
    shape = given.get(first)
    if shape is None:
        shape = _image_shape(spec, problem)
        logger.warning("%s: taken for %s (%s)", first, " x ".join(map(str, shape)), problem)
    return [shape, *(given.get(label, shape[:1]) for label in labels)]


def _image_shape(spec: LayerSpec, problem: str) -> Shape:
    layer = spec.message
    transform, images = layer.transform_param, layer.image_data_param
    gray = transform.force_gray or (images.HasField("is_color") and not images.is_color)
    height = transform.crop_size or images.new_height
    width = transform.crop_size or images.new_width
    if not height or not width:
        hint = f"tell its shape by --shape {layer.top[0]}=..."
        raise ConfigError(spec.fault(f"{problem}; {hint}" if problem else hint))
    return (_batch_size(layer), 1 if gray else 3, height, width)


def _input(
    spec: LayerSpec,
    tops: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    known: Mapping[str, Shape],
) -> LayerParameter:
    """The Input layer that takes the place of a data layer, for some of its tops."""
    layer = LayerParameter(name=spec.name, type="Input", top=tops)
    for blob in tops:
        shape: Sequence[int] = shapes.get(blob, ())
        if not shape and blob in known:
            shape = (_batch_size(spec.message), *known[blob])
        index = list(spec.message.top).index(blob)
        layer.input_param.shape.add(dim=shape or top_shape(spec, index))
    if tops[0] == spec.message.top[0]:
        record_preprocessing(spec.message, layer)
    return layer


def class_of(layer: LayerParameter) -> type:
    try:
        return find(layer.type)
    except LayerError:
        return Layer  # what is unknown here may be known to the tool the net is for


def is_source(layer: LayerParameter) -> bool:
    return issubclass(class_of(layer), DataSource)


def item_shape(spec: LayerSpec, index: int) -> Shape:
    """The shape of one item of a data layer's top."""
    shape = top_shape(spec, index)
    return shape if spec.message.type == "Input" else (1, *shape[1:])


def top_shape(spec: LayerSpec, index: int) -> Shape:
    """The shape of a data layer's top; its data are opened only if the definition is silent."""
    layer = spec.message
    transform = layer.transform_param
    channels = 3 if transform.force_color or len(transform.mean_value) == 3 else 0
    if index == 0 and transform.crop_size and (channels or transform.force_gray):
        return (_batch_size(layer), channels or 1, transform.crop_size, transform.crop_size)
    try:
        return tuple(_opened_shapes(layer)[index])
    except (LayerError, DataError) as error:
        blob = layer.top[index]
        size = transform.crop_size or 224
        message = f"the shape of {blob!r} is not known; give it as --shape {blob}=1,3,{size},{size}"
        raise ConfigError(spec.fault(f"{message} ({error})")) from None


def _batch_size(layer: LayerParameter) -> int:
    """How many items a data layer's batch has, as far as its message says so."""
    cls = class_of(layer)
    assert issubclass(cls, DataSource)
    own = getattr(layer, cls.message_field) if cls.message_field else None
    return getattr(own, "batch_size", 0) or 1


def record_preprocessing(data: LayerParameter, layer: LayerParameter) -> None:
    """Copy the preprocessing of a data layer to its Input layer."""
    for field in data.transform_param.DESCRIPTOR.fields:
        if field.name in _PREPROCESSING and _is_set(data.transform_param, field.name):
            _copy(data.transform_param, layer.transform_param, field.name)
    for name in _RESIZING:
        if data.image_data_param.HasField(name):
            _copy(data.image_data_param, layer.image_data_param, name)


def _is_set(message: caffe_pb2.TransformationParameter, name: str) -> bool:
    return any(field.name == name for field, _ in message.ListFields())


def _copy(source: object, target: object, name: str) -> None:
    value = getattr(source, name)
    if isinstance(value, str | bool | int | float):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)
