"""The net of a new experiment: a small one of our own, or a model of the zoo fitted to the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...model_zoo.index import Model
from ...proto.caffe_pb2 import LayerParameter, NetParameter
from ...proto.errors import ConfigError
from ...proto.files import read_net
from ...proto.text import parse

#: A new layer learns this much faster than those that come trained.
FRESH_RATE = 10


@dataclass(frozen=True, slots=True)
class Data:
    """What the net is built for: databases, batch sizes, classes and the shape of an image."""

    train: str
    test: str
    batch: int
    test_batch: int
    classes: int
    channels: int
    mean: tuple[float, ...]


def small(name: str, data: Data) -> NetParameter:
    """Three convolutions with batch normalisation and pooling: learns small images from scratch."""
    parts = [f'name: "{name}"']
    for phase, source, size in (
        ("TRAIN", data.train, data.batch),
        ("TEST", data.test, data.test_batch),
    ):
        means = " ".join(f"mean_value: {value:g}" for value in data.mean)
        parts.append(
            f'layer {{ name: "data" type: "Data" top: "data" top: "label" '
            f"include {{ phase: {phase} }} "
            f"transform_param {{ scale: 0.017 {means} }} "
            f'data_param {{ source: "{source}" batch_size: {size} backend: LMDB }} }}'
        )
    last = "data"
    for index, width in enumerate((32, 64, 128), 1):
        parts.append(_stage(index, width, last))
        last = f"pool{index}"
    parts.append(f"""
    layer {{ name: "global" type: "Pooling" bottom: "{last}" top: "global"
      pooling_param {{ pool: AVE global_pooling: true }} }}
    layer {{ name: "drop" type: "Dropout" bottom: "global" top: "global"
      dropout_param {{ dropout_ratio: 0.2 }} }}
    layer {{ name: "scores" type: "InnerProduct" bottom: "global" top: "scores"
      param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
      inner_product_param {{ num_output: {data.classes} weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "accuracy"
      include {{ phase: TEST }} }}
    layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }}
    """)
    return parse("\n".join(parts), NetParameter).message


def _stage(index: int, width: int, bottom: str) -> str:
    top = f"conv{index}"
    return f"""
    layer {{ name: "{top}" type: "Convolution" bottom: "{bottom}" top: "{top}"
      convolution_param {{ num_output: {width} kernel_size: 3 pad: 1 bias_term: false
        weight_filler {{ type: "msra" }} }} }}
    layer {{ name: "bn{index}" type: "BatchNorm" bottom: "{top}" top: "{top}" }}
    layer {{ name: "scale{index}" type: "Scale" bottom: "{top}" top: "{top}"
      scale_param {{ bias_term: true }} }}
    layer {{ name: "relu{index}" type: "ReLU" bottom: "{top}" top: "{top}" }}
    layer {{ name: "pool{index}" type: "Pooling" bottom: "{top}" top: "pool{index}"
      pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
    """


def fitted(model: Model, name: str, data: Data, fine_tune: bool) -> NetParameter:
    """The model's net with these databases and as many outputs as there are classes.

    The layers that give the classes are called anew, so that published weights, which have other
    shapes there, leave them alone. ConfigError if no layer gives the model's classes.
    """
    net = read_net(model.net_file).message
    net.name = name
    fresh: dict[str, str] = {}
    for layer in net.layer:
        if layer.type == "Data":
            _feed(layer, data)
        size = _outputs(layer)
        if size is not None and size.num_output == model.classes:
            size.num_output = data.classes
            fresh[layer.name] = f"{layer.name}_{name}"
            layer.name = fresh[layer.name]
            if fine_tune:
                _learn_faster(layer)
    if not fresh:
        raise ConfigError(f"model {model.name}: no layer with its {model.classes} classes is known")
    kept = [layer for layer in net.layer if layer.accuracy_param.top_k <= data.classes]
    if len(kept) < len(net.layer):
        layers = [LayerParameter.FromString(each.SerializeToString()) for each in kept]
        del net.layer[:]
        net.layer.extend(layers)
    return net


def _outputs(layer: LayerParameter) -> Any:
    """The message of a layer that says how many outputs it has; None for other layers."""
    if layer.type == "InnerProduct":
        return layer.inner_product_param
    return layer.convolution_param if layer.type == "Convolution" else None


def _feed(layer: LayerParameter, data: Data) -> None:
    tests = any(rule.phase == 1 for rule in layer.include)
    layer.data_param.source = data.test if tests else data.train
    layer.data_param.batch_size = data.test_batch if tests else data.batch
    transform = layer.transform_param
    if transform.mean_file or len(transform.mean_value) not in (0, 1, data.channels):
        transform.ClearField("mean_file")
        del transform.mean_value[:]
        transform.mean_value.extend(data.mean)


def _learn_faster(layer: LayerParameter) -> None:
    while len(layer.param) < 2:
        layer.param.add()
    for index, spec in enumerate(layer.param):
        spec.lr_mult = FRESH_RATE * (1 + index)


def crop_of(net: NetParameter) -> int:
    """The crop_size of the net's data layers; 0 without."""
    return max((layer.transform_param.crop_size for layer in net.layer), default=0)


def write(net: NetParameter, path: Path, remark: str) -> None:
    """Write a net with a remark on its first line."""
    from ...proto.text import to_text

    path.write_text(f"# {remark}\n{to_text(net)}", encoding="utf-8")
