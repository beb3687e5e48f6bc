"""Convert weights from one format to another, and prove that the net computes the same.

Formats: .caffemodel, Caffe's HDF5 (.h5), .safetensors and PyTorch's .pth. A is recognised by its
content (or is a name such as zoo:resnet18), B by its ending. --model is the net that the weights
belong to: a prototxt or zoo:NAME; a .caffemodel brings its own. --verify runs the net with A and
with B on the same random images and compares what every layer gives.

--torch_names NAME writes a state dict with the names of torchvision's model NAME, which
load_state_dict there accepts.

example:
  cortado convert resnet18-f37072fd.pth resnet18.caffemodel --model zoo:resnet18 --verify
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..proto.errors import ConfigError, WeightsError
from .flags import comma_list, one_of, switch

if TYPE_CHECKING:
    import torch

    from ..netdef import Net
    from ..netdef.torch_names import NameRules
    from ..proto.caffe_pb2 import Preprocessing

#: How far a layer's values may differ, relative to its largest one, by stored precision.
TOLERANCES = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="A", help="weights to read")
    parser.add_argument("target", metavar="B", help="file to write")
    parser.add_argument("--model", default="", help="net prototxt, or zoo:NAME")
    parser.add_argument("--stage", default="", help="stages of the net's state, a comma list")
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

    net, rules = open_model(args)
    loaded = weights.read(_source(args.source), net.steps, rules)
    print(net.load(loaded))
    # What the training did; the net's own data layers may read other images.
    known = loaded.preprocessing or list(net.preprocessing.values())
    write(net, args, rules, known)
    print(f"wrote {args.target}: {Path(args.target).stat().st_size:,} bytes")
    if args.verify:
        twin, _ = open_model(args)
        twin.load(weights.read(Path(args.target), twin.steps, rules if args.torch_names else None))
        judge(compare(net, twin), TOLERANCES[args.dtype])
    return 0


def _source(name: str) -> str | Path:
    from ..proto import schemes

    return name if schemes.opener_of(name) else Path(name)


def open_model(args: argparse.Namespace) -> tuple[Net, NameRules | None]:
    """The net for the weights, and how torchvision's names become its own if the zoo knows that."""
    from ..model_zoo import index, published_names, zoo
    from ..netdef import Net
    from ..proto.weights import read_net_message

    name = args.model or (args.source if args.source.startswith("zoo:") else "")
    if name.startswith("zoo:"):
        model = index.split_name(name.removeprefix("zoo:"))[0]
        return zoo.load(model.name), published_names.rules(model)
    stages = comma_list(args.stage)
    if name:
        return Net(name, "TEST", stages=stages), None
    if not args.source.endswith(".caffemodel"):
        raise ConfigError(
            "cortado convert: --model FILE is needed: only a .caffemodel says what its net is"
        )
    return Net(fed(read_net_message(args.source)), "TEST", stages=stages), None


def fed(message: Any) -> Any:
    """A net from a .caffemodel: its layers were chosen for a phase, which no longer matters."""
    for layer in message.layer:
        del layer.include[:], layer.exclude[:]
        layer.ClearField("phase")
    return message


def write(
    net: Net,
    args: argparse.Namespace,
    rules: NameRules | None,
    known: Sequence[Preprocessing],
) -> None:
    """Write the net's weights to B, and with them ``known``, how images are prepared."""
    import torch

    from ..netdef import state_dicts, weights

    dtype: torch.dtype = getattr(torch, args.dtype)
    if not args.torch_names:
        weights.save(net, args.target, dtype, known)
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
    named = to_torch_names(net.layer_blobs(), net.steps, wanted, rules)
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
