"""Bringing nets and solvers of older Caffe formats to the current one.

The chain is Caffe's: V0 layers to V1 (:mod:`.upgrade_v0`), transformation fields of V1 data layers
to ``transform_param``, V1 ``layers`` to ``layer``, the ``input`` fields to an Input layer, and
BatchNorm layers that declare their three statistics as parameters to a rate of zero. The functions
take a message and return a new one; nothing is read or written, and a net that is up to date comes
back as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from . import upgrade_v0
from .caffe_pb2 import (
    LayerParameter,
    NetParameter,
    ParamSpec,
    SolverParameter,
    V1LayerParameter,
)

#: Where a layer of the upgraded net comes from: a field of the old net and the index in it.
Origin = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the old net: ``origin`` says where, as far as it has a place."""

    message: str
    origin: Origin | None = None


@dataclass(slots=True)
class NetUpgrade:
    """An upgraded net.

    ``origins`` has one entry for each ``net.layer``. ``steps`` names the old formats that were
    found. ``losses`` are fields that the new format cannot hold (Caffe warns and goes on);
    ``refusals`` make the net unusable (Caffe aborts).
    """

    net: NetParameter
    origins: list[Origin]
    steps: list[str] = field(default_factory=list)
    losses: list[Note] = field(default_factory=list)
    refusals: list[Note] = field(default_factory=list)


V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
_TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param"} | {
    "WINDOW_DATA": "window_data_param"
}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade_net(net: NetParameter) -> NetUpgrade:
    """``net`` in the current format; see :class:`NetUpgrade` for what else comes back."""
    upgrade = NetUpgrade(net, [("layer", index) for index in range(len(net.layer))])
    for needed, step in _STEPS:
        if needed(upgrade.net):
            if upgrade.net is net:
                upgrade.net = NetParameter()
                upgrade.net.CopyFrom(net)
            step(upgrade)
    return upgrade


def upgrade_solver(solver: SolverParameter) -> SolverParameter:
    """``solver`` with the old ``solver_type`` number as ``type``; ValueError if it has both."""
    if not solver.HasField("solver_type"):
        return solver
    if solver.HasField("type"):
        raise ValueError("'solver_type' is the old form of 'type': only one of them may be given")
    new = SolverParameter()
    new.CopyFrom(solver)
    new.type = SOLVER_TYPES[SolverParameter.SolverType.Name(solver.solver_type)]
    new.ClearField("solver_type")
    return new


def _has_v0_layers(net: NetParameter) -> bool:
    return any(layer.HasField("layer") for layer in net.layers)


def _upgrade_v0(upgrade: NetUpgrade) -> None:
    def refuse(message: str, index: int) -> None:
        upgrade.refusals.append(Note(message, ("layers", index)))

    def lose(message: str, index: int) -> None:
        upgrade.losses.append(Note(message, ("layers", index)))

    upgrade.steps.append("V0LayerParameter")
    indices = upgrade_v0.fold_padding(upgrade.net, refuse)
    for index, layer in zip(indices, upgrade.net.layers, strict=True):
        if layer.HasField("layer"):
            upgrade_v0.upgrade_layer(layer, index, refuse, lose)
    upgrade.origins = [("layers", index) for index in indices]


def _old_transform(layer: V1LayerParameter) -> str | None:
    """The name of the parameter message that may hold transformation fields of ``layer``."""
    return _TRANSFORMED.get(V1LayerParameter.LayerType.Name(layer.type))


def _has_old_transforms(net: NetParameter) -> bool:
    for layer in net.layers:
        holder = _old_transform(layer)
        if holder and any(getattr(layer, holder).HasField(name) for name in _TRANSFORM_FIELDS):
            return True
    return False


def _upgrade_transforms(upgrade: NetUpgrade) -> None:
    upgrade.steps.append("transformation parameters")
    for layer in upgrade.net.layers:
        holder = _old_transform(layer)
        if holder is None:
            continue
        old = getattr(layer, holder)
        old.SetInParent()  # Caffe leaves both messages behind even where they are empty
        layer.transform_param.SetInParent()
        for name in _TRANSFORM_FIELDS:
            if old.HasField(name):
                setattr(layer.transform_param, name, getattr(old, name))
                old.ClearField(name)


def _upgrade_v1(upgrade: NetUpgrade) -> None:
    upgrade.steps.append("V1LayerParameter")
    net = upgrade.net
    if net.layer:
        upgrade.refusals.append(
            Note("a net has either 'layer' or the older 'layers', not both", ("layers", 0))
        )
        return
    if len(upgrade.origins) != len(net.layers):
        upgrade.origins = [("layers", index) for index in range(len(net.layers))]
    for (_, index), old in zip(upgrade.origins, net.layers, strict=True):
        if old.HasField("layer"):
            lost = Note("the nested V0 layer is left out", ("layers", index))
            upgrade.losses.append(lost)
        _upgrade_v1_layer(old, net.layer.add())
    net.ClearField("layers")


def _upgrade_v1_layer(old: V1LayerParameter, new: LayerParameter) -> None:
    def spec(index: int) -> ParamSpec:
        while len(new.param) <= index:
            new.param.add()
        return new.param[index]

    for descriptor, value in old.ListFields():
        name = descriptor.name
        if name == "type":
            new.type = V1_TYPES[V1LayerParameter.LayerType.Name(value)]
        elif name in _V1_PARAM_FIELDS:
            for index, item in enumerate(value):
                setattr(spec(index), _V1_PARAM_FIELDS[name], item)
        elif descriptor.is_repeated:
            getattr(new, name).extend(value)
        elif name == "name":
            new.name = value
        elif name != "layer":
            getattr(new, name).CopyFrom(value)


# The lists that V1 kept side by side, and the field of ParamSpec that each became.
_V1_PARAM_FIELDS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def _upgrade_inputs(upgrade: NetUpgrade) -> None:
    """Inputs with a shape become one Input layer, in front; without, they are just dropped."""
    upgrade.steps.append("input fields")
    net = upgrade.net
    inputs, shapes, dims = list(net.input), list(net.input_shape), list(net.input_dim)
    if shapes and len(shapes) != len(inputs):
        message = f"there must be one 'input_shape' per 'input', got {len(shapes)}"
        upgrade.refusals.append(Note(f"{message} for {len(inputs)}", ("input", 0)))
        return
    if not shapes and dims and len(dims) != 4 * len(inputs):
        message = f"there must be four 'input_dim' per 'input', got {len(dims)}"
        upgrade.refusals.append(Note(f"{message} for {len(inputs)}", ("input", 0)))
        return
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    if not shapes and not dims:
        return
    layer = LayerParameter(name="input", type="Input", top=inputs)
    for index in range(len(inputs)):
        shape = layer.input_param.shape.add()
        shape.dim.extend(shapes[index].dim if shapes else dims[4 * index : 4 * index + 4])
    net.layer.insert(0, layer)
    upgrade.origins.insert(0, ("input", 0))


def _is_old_batch_norm(layer: LayerParameter) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _has_old_batch_norm(net: NetParameter) -> bool:
    def is_old(layer: LayerParameter) -> bool:
        zero = all(
            spec.HasField("lr_mult") and spec.lr_mult == 0
            and spec.HasField("decay_mult") and spec.decay_mult == 0
            for spec in layer.param
        )  # fmt: skip
        return _is_old_batch_norm(layer) and not zero

    return any(is_old(layer) for layer in net.layer)


def _upgrade_batch_norm(upgrade: NetUpgrade) -> None:
    upgrade.steps.append("batch norm params")
    for layer in upgrade.net.layer:
        if _is_old_batch_norm(layer):
            for spec in layer.param:
                spec.lr_mult = 0
                spec.decay_mult = 0


_STEPS: tuple[tuple[Callable[[NetParameter], bool], Callable[[NetUpgrade], None]], ...] = (
    (_has_v0_layers, _upgrade_v0),
    (_has_old_transforms, _upgrade_transforms),
    (lambda net: len(net.layers) > 0, _upgrade_v1),
    (lambda net: len(net.input) > 0, _upgrade_inputs),
    (_has_old_batch_norm, _upgrade_batch_norm),
)
