"""From the oldest net format (V0, lower-case types in a nested ``layer``) to V1, as Caffe does.

Everything is data: which V0 field goes where depends on the layer's type and stands in a table.
"""

from __future__ import annotations

from collections.abc import Callable

from . import caffe_pb2
from .caffe_pb2 import NetParameter, V1LayerParameter

#: Called with what is wrong and the index of the layer in ``NetParameter.layers``.
Report = Callable[[str, int], None]

TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 field: new name of the field, and for each type that has it the parameter message it lives in.
_CONV, _INNER, _POOL = "convolution_param", "inner_product_param", "pooling_param"
_FULL = {"conv": _CONV, "innerproduct": _INNER}
_SPATIAL = {"conv": _CONV, "pool": _POOL}
_DATABASE = {"data": "data_param", "images": "image_data_param"}
_BATCHED = {**_DATABASE, "hdf5_data": "hdf5_data_param", "window_data": "window_data_param"}
_IMAGES = {"images": "image_data_param"}
_WINDOW = {"window_data": "window_data_param"}
_LRN = {"lrn": "lrn_param"}
FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "num_output": ("num_output", _FULL),
    "biasterm": ("bias_term", _FULL),
    "weight_filler": ("weight_filler", _FULL),
    "bias_filler": ("bias_filler", _FULL),
    "pad": ("pad", _SPATIAL),
    "kernelsize": ("kernel_size", _SPATIAL),
    "group": ("group", {"conv": _CONV}),
    "stride": ("stride", _SPATIAL),
    "pool": ("pool", {"pool": _POOL}),
    "dropout_ratio": ("dropout_ratio", {"dropout": "dropout_param"}),
    "local_size": ("local_size", _LRN),
    "alpha": ("alpha", _LRN),
    "beta": ("beta", _LRN),
    "k": ("k", _LRN),
    "source": ("source", {**_BATCHED, "infogain_loss": "infogain_loss_param"}),
    "batchsize": ("batch_size", _BATCHED),
    "rand_skip": ("rand_skip", _DATABASE),
    "shuffle_images": ("shuffle", _IMAGES),
    "new_height": ("new_height", _IMAGES),
    "new_width": ("new_width", _IMAGES),
    "concat_dim": ("concat_dim", {"concat": "concat_param"}),
    "det_fg_threshold": ("fg_threshold", _WINDOW),
    "det_bg_threshold": ("bg_threshold", _WINDOW),
    "det_fg_fraction": ("fg_fraction", _WINDOW),
    "det_context_pad": ("context_pad", _WINDOW),
    "det_crop_mode": ("crop_mode", _WINDOW),
}
#: Fields that every type may have: their new names in ``transform_param``.
TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}
#: Fields that Caffe drops without a word: they belonged to a layer type that never shipped.
_DROPPED = frozenset({"new_num", "new_channels"})


def fold_padding(net: NetParameter, refuse: Report) -> list[int]:
    """Remove padding layers from ``net.layers`` in place; returns the old index of each that stays.

    The convolution or pooling layer that follows takes over the padding and the bottom.
    """
    producer: dict[str, V1LayerParameter] = {}
    kept: list[V1LayerParameter] = []
    indices: list[int] = []
    for index, layer in enumerate(net.layers):
        copy = V1LayerParameter()
        copy.CopyFrom(layer)
        for position, bottom in enumerate(layer.bottom):
            padding = producer.get(bottom)
            if padding is None or padding.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool"):
                refuse("only a conv or pool layer can follow a padding layer", index)
            elif len(layer.bottom) != 1 or len(padding.bottom) != 1 or len(padding.top) != 1:
                refuse("a padding layer and the one after it must have one bottom each", index)
            else:
                copy.layer.pad = padding.layer.pad
                copy.bottom[position] = padding.bottom[0]
        producer.update((top, layer) for top in layer.top)
        if layer.layer.type != "padding":
            kept.append(copy)
            indices.append(index)
    del net.layers[:]
    net.layers.extend(kept)
    return indices


def upgrade_layer(old: V1LayerParameter, index: int, refuse: Report, lose: Report) -> None:
    """Turn the nested V0 ``layer`` of ``old`` into V1 fields, in place.

    ``refuse`` hears what makes the layer unusable, ``lose`` what Caffe warns about and leaves out.
    """
    v0 = caffe_pb2.V0LayerParameter()
    v0.CopyFrom(old.layer)
    bottoms, tops = list(old.bottom), list(old.top)
    old.Clear()
    old.bottom.extend(bottoms)
    old.top.extend(tops)
    for field, value in v0.ListFields():
        name = field.name
        if name == "type":
            if value not in TYPES:
                refuse(f"there is no layer type {value!r} in the V0 format", index)
            else:
                old.type = getattr(V1LayerParameter, TYPES[value])
        elif name in ("blobs", "blobs_lr", "weight_decay"):
            getattr(old, name).extend(value)
        elif name == "name":
            old.name = value
        elif name in TRANSFORM:
            setattr(old.transform_param, TRANSFORM[name], value)
        elif name == "hdf5_output_param" and v0.type == "hdf5_output":
            old.hdf5_output_param.CopyFrom(value)
        elif name in FIELDS and v0.type in FIELDS[name][1]:
            new_name, holders = FIELDS[name]
            _assign(getattr(old, holders[v0.type]), new_name, value)
        elif name not in _DROPPED:
            lose(f"a layer of type {v0.type!r} has no field {name!r}; it is left out", index)


def _assign(message: object, name: str, value: object) -> None:
    """Set a field whether it is a scalar, a message or repeated (then the value is appended)."""
    current = getattr(message, name)
    if hasattr(current, "CopyFrom"):
        current.CopyFrom(value)
    elif hasattr(current, "append"):
        current.append(value)
    else:
        setattr(message, name, value)
