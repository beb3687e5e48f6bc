"""Convert weights from one format to another, and prove that the net computes the same.

Formats: .caffemodel, Caffe's HDF5 (.h5), .safetensors and PyTorch's .pth. A is recognised by its
content (or is a name such as zoo:resnet18), B by its ending. --model is the net that the weights
belong to: a prototxt or zoo:NAME; a .caffemodel brings its own, whose data need not be there
(--shape says of which shape they are, where the file does not). --verify runs the net with A and
with B on the same random images and compares what every layer gives.

--torch_names NAME writes a state dict with the names of torchvision's model NAME, which
load_state_dict there accepts.

example:
  cortado convert resnet18-f37072fd.pth resnet18.caffemodel --model zoo:resnet18 --verify
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, WeightsError
from .flags import comma_list, one_of, parse_shape, shape_flag, switch

if TYPE_CHECKING:
    from ..netdef import Net
    from ..netdef.torch_names import NameRules
    from ..proto.caffe_pb2 import NetParameter, Preprocessing

#: How far a layer's values may differ, relative to its largest one, by stored precision.
TOLERANCES = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="A", help="weights to read")
    parser.add_argument("target", metavar="B", help="file to write")
    parser.add_argument("--model", default="", help="net prototxt, or zoo:NAME")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
    shape_flag(parser)
    parser.add_argument(
        "--dtype",
        type=one_of(*TOLERANCES),
        default="float32",
        help="precision of .safetensors and .pth (default float32)",
    )
    parser.add_argument("--torch_names", default="", help="write the names of this torchvision net")
    switch(parser, "verify", "compare all layers' outputs with A and B")


def run(args: argparse.Namespace) -> int:
    from ..netdef import weights

    model = open_model(args)
    net, rules = model.net, model.rules
    loaded = weights.read(_source(args.source), net.steps, rules)
    print(net.load(loaded))
    # What the training did; the net's own data layers may read other images.
    known = loaded.preprocessing or net.to_message().preprocessing
    write(model, args, known)
    print(f"wrote {args.target}: {Path(args.target).stat().st_size:,} bytes")
    if args.verify:
        twin = open_model(args).net
        twin.load(weights.read(Path(args.target), twin.steps, rules if args.torch_names else None))
        judge(compare(net, twin), TOLERANCES[args.dtype])
    return 0


def _source(name: str) -> str | Path:
    from ..proto import schemes

    return name if schemes.opener_of(name) else Path(name)


@dataclass(frozen=True, slots=True)
class Model:
    """The net for the weights, how torchvision's names become its own if the zoo knows that, and
    the definition that goes with the weights if it is not the net's."""

    net: Net
    rules: NameRules | None = None
    definition: NetParameter | None = None


def open_model(args: argparse.Namespace) -> Model:
    """The net for the weights, from --model, A's name or what A holds."""
    from ..model_zoo import index, published_names, zoo
    from ..netdef import Net

    name = args.model or (args.source if args.source.startswith("zoo:") else "")
    if name and args.shape:
        raise ConfigError("cortado convert: --shape is for the net that a .caffemodel holds")
    if name.startswith("zoo:"):
        model = index.split_name(name.removeprefix("zoo:"))[0]
        return Model(zoo.load(model.name), published_names.rules(model))
    if name:
        return Model(Net(name, "TEST", stages=comma_list(args.stage)))
    if not args.source.endswith(".caffemodel"):
        raise ConfigError(
            "cortado convert: --model FILE is needed: only a .caffemodel says what its net is"
        )
    return own_model(args.source, dict(map(parse_shape, args.shape)))


def own_model(path: str, shapes: Mapping[str, Sequence[int]]) -> Model:
    """The net that a .caffemodel holds, without its data layers.

    ConfigError if the shape of its data is neither known nor in ``shapes``.
    """
    from ..layers.imports import import_named
    from ..netdef import Net
    from ..netdef.blueprint import load_definition
    from ..netdef.inputs import without_data
    from ..proto.weights import read_net_message, read_weights

    message = read_net_message(path)
    for layer in message.layer:  # they were chosen for a phase, which no longer matters
        del layer.include[:], layer.exclude[:]
        layer.ClearField("phase")
    document = load_definition(message)
    import_named(document)
    holding = {layer.name for layer in read_weights(path).layers if layer.blobs}
    net = Net(without_data(document, holding, shapes), "TEST")
    return Model(net, definition=document.message)


def write(model: Model, args: argparse.Namespace, known: Sequence[Preprocessing]) -> None:
    """Write the net's weights to B, and with them ``known``, how images are prepared."""
    import torch

    from ..netdef import state_dicts, weights

    net, dtype = model.net, getattr(torch, args.dtype)
    if not args.torch_names:
        weights.save(net, args.target, dtype, known, model.definition)
        return
    from ..model_zoo.published_names import original_state
    from ..netdef.torch_names import to_torch_names

    if Path(args.target).suffix not in (
        *state_dicts.SAFETENSORS_SUFFIXES,
        *state_dicts.TORCH_SUFFIXES,
    ):
        raise ConfigError("cortado convert: --torch_names goes with .safetensors, .pth and .pt")
    wanted = original_state(args.torch_names)
    if not any(key.startswith("aux") for key in (layer.name for layer in net.layer_blobs())):
        wanted = {
            key: value for key, value in wanted.items() if not key.startswith(("aux", "AuxL"))
        }
    named = to_torch_names(net.layer_blobs(), net.steps, wanted, model.rules)
    state_dicts.write_state_dict(args.target, named, dtype, known)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a layer's top differs: the largest distance, and that over the largest value."""

    layer: str
    absolute: float
    relative: float


def compare(first: Net, second: Net) -> list[Difference]:
    """Run both nets on the same random inputs; one difference for each blob, in order.

    A blob goes by the name of the layer that wrote to it last.
    """
    import torch

    inputs = {name: torch.rand(shape) for name, shape in first.inputs.items()}
    for net in (first, second):
        net.keep_blobs = True
        with torch.no_grad():
            net(**inputs)
    writers = {top: step.name for step in first.steps for top in step.tops}
    differences = []
    for blob, layer in writers.items():
        one, other = first.blobs[blob], second.blobs[blob]
        distance, largest = float((one - other).abs().max()), float(one.abs().max())
        differences.append(Difference(layer, distance, distance / (largest or 1.0)))
    return differences


def judge(differences: list[Difference], tolerance: float) -> None:
    """Print the table of differences; WeightsError if one is beyond ``tolerance``."""
    width = max(len(each.layer) for each in differences)
    print(f"{'layer':<{width}}  max |difference|  relative")
    for each in differences:
        print(f"{each.layer:<{width}}  {each.absolute:16.3g}  {each.relative:8.2g}")
    # Not "> tolerance": a difference that is no number must not pass.
    wrong = [each for each in differences if not each.relative <= tolerance]
    if wrong:
        raise WeightsError(
            f"layer {wrong[0].layer!r} gives other values with the converted weights: relative "
            f"difference {wrong[0].relative:.2g}, allowed is {tolerance:g}"
        )
    print(f"the outputs of all layers agree within {tolerance:g}")
