"""From the net that is trained to the net that is used: Input for data, no losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..layers.losses import LossLayer
from ..proto import caffe_pb2
from ..proto.caffe_pb2 import LayerParameter, NetParameter
from ..proto.errors import ConfigError, Fault
from ..proto.positions import Document
from .inputs import class_of, is_source, item_shape, record_preprocessing
from .state import LayerSpec, State, effective_layers

#: The stage in which a net's layers for deployment alone are chosen.
STAGE = "deploy"

#: What takes the place of a loss, to give what the loss is computed from; other losses leave their
#: first bottom as the net's output.
_ACTIVATIONS = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}


def deploy(
    document: Document[NetParameter],
    shapes: Mapping[str, Sequence[int]] | None = None,
    stages: Iterable[str] = (STAGE,),
) -> NetParameter:
    """The net for deployment: the layers of phase TEST and of ``stages`` that lead to outputs.

    Data layers become Input layers of one item. These, and Input layers that the stage chooses,
    carry the preprocessing of the data layer for the same blob in their ``transform_param``
    (images of an ImageData layer: also their size in its ``image_data_param``), which Caffe's
    Input layer leaves alone. Losses and accuracies go, with all that only they needed: labels, and
    heads whose loss weighs less than the largest. SoftmaxWithLoss becomes Softmax, as in Caffe's
    deploy nets, SigmoidCrossEntropyLoss Sigmoid. Nothing is folded, and names stay, so that the
    trained weights fit.

    ``shapes`` gives shapes of inputs by their blob; the others must be known from the data layer.
    ConfigError if they are not.
    """
    faults: list[Fault] = []
    state = State(caffe_pb2.TEST, stages=frozenset(stages))
    specs = effective_layers(document, state, faults)
    if faults:
        raise ConfigError(faults)
    layers = [spec.message for spec in specs]
    data = _data_layers(document)
    losses, ends = _main_losses(layers), set(outputs(layers))
    needed = ends | {loss.bottom[0] for loss in losses}
    kept: list[LayerParameter] = []
    for spec in reversed(specs):
        layer = spec.message
        if any(layer is loss for loss in losses):
            kept += _activation(layer, len(losses))
        if _is_measure(layer) or needed.isdisjoint(layer.top):
            continue
        if is_source(layer):
            kept += _inputs(spec, needed, shapes or {}, data)
        else:
            needed.update(layer.bottom)
            kept.append(_plain(layer))
    if not kept:
        raise ConfigError("nothing is left of the net without its data, losses and accuracies")
    kept = [*_silences(layers, kept), *kept]
    result = NetParameter(name=document.message.name, layer=reversed(kept))
    # What layers need besides themselves: the modules of own ones, and Caffe's quirks.
    getattr(result, "import").extend(getattr(document.message, "import"))
    if document.message.HasField("caffe_quirks"):
        result.caffe_quirks = document.message.caffe_quirks
    return result


def _silences(
    layers: Iterable[LayerParameter], kept: Iterable[LayerParameter]
) -> list[LayerParameter]:
    """The Silence layers that keep a blob of the layers ``kept`` from being an output."""
    made = {top for layer in kept for top in layer.top}
    return [
        _plain(layer)
        for layer in layers
        if layer.type == "Silence" and made.issuperset(layer.bottom)
    ]


def _data_layers(document: Document[NetParameter]) -> dict[str, LayerParameter]:
    """The layers that give the net its images in phase TEST, by their first top."""
    specs = effective_layers(document, State(caffe_pb2.TEST), [])
    layers = (spec.message for spec in specs)
    return {layer.top[0]: layer for layer in layers if layer.top and is_source(layer)}


def _is_loss(layer: LayerParameter) -> bool:
    return issubclass(class_of(layer), LossLayer)


def _is_measure(layer: LayerParameter) -> bool:
    return layer.type == "Accuracy" or _is_loss(layer)


def _main_losses(layers: Iterable[LayerParameter]) -> list[LayerParameter]:
    """The losses of the largest weight; those that weigh less only help the training."""
    weights = [
        (layer.loss_weight[0] if layer.loss_weight else 1.0, layer)
        for layer in layers
        if _is_loss(layer) and layer.bottom
    ]
    largest = max((weight for weight, _ in weights), default=0.0)
    return [layer for weight, layer in weights if weight == largest]


def outputs(layers: Iterable[LayerParameter]) -> list[str]:
    """The blobs that no layer reads, apart from losses, accuracies and data."""
    waiting: dict[str, LayerParameter] = {}
    for layer in layers:
        for blob in layer.bottom:
            waiting.pop(blob, None)
        waiting.update(dict.fromkeys(layer.top, layer))
    return [
        blob for blob, layer in waiting.items() if not _is_measure(layer) and not is_source(layer)
    ]


def _plain(layer: LayerParameter) -> LayerParameter:
    """The layer without what only training and choosing need."""
    plain = LayerParameter()
    plain.CopyFrom(layer)
    for field in ("phase", "include", "exclude", "loss_weight", "propagate_down"):
        plain.ClearField(field)
    return plain


def _activation(loss: LayerParameter, count: int) -> list[LayerParameter]:
    """The layer in place of a loss, called ``prob`` if there is only one."""
    kind = _ACTIVATIONS.get(loss.type)
    if kind is None:
        return []
    name = "prob" if count == 1 else f"{loss.name}/prob"
    layer = LayerParameter(name=name, type=kind, bottom=loss.bottom[:1], top=[name])
    if loss.HasField("softmax_param"):
        layer.softmax_param.CopyFrom(loss.softmax_param)
    return [layer]


def _inputs(
    spec: LayerSpec,
    needed: set[str],
    shapes: Mapping[str, Sequence[int]],
    data: Mapping[str, LayerParameter],
) -> list[LayerParameter]:
    """Input layers for the tops of a data layer that are needed, the last first.

    The preprocessing is that of the layer of ``data`` that makes the same blob.
    """
    inputs = []
    for index, blob in reversed(list(enumerate(spec.message.top))):
        if blob not in needed:
            continue
        shape = shapes.get(blob) or item_shape(spec, index)
        layer = LayerParameter(name=blob, type="Input", top=[blob])
        layer.input_param.shape.add(dim=shape)
        for source in (spec.message if index == 0 else None, data.get(blob)):
            if source is not None and not layer.HasField("transform_param"):
                record_preprocessing(source, layer)
        inputs.append(layer)
    return inputs
