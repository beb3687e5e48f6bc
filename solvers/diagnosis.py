"""Finding the layer where numbers stop being finite, and bundles that show it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..netdef import Net
from ..proto.caffe_pb2 import NetParameter
from ..proto.errors import DataError
from ..proto.files import write_text

_NET, _WEIGHTS, _MESSAGE, _KEYS = "net.prototxt", "weights.caffemodel", "why", "keys"
_BATCH, _GENERATORS = "batch.safetensors", "generators.safetensors"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A batch, the states of the random generators when it was run, and its records' keys."""

    batch: Mapping[str, Tensor]
    generators: Mapping[str, Tensor] = field(default_factory=dict)
    keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest finite value of a tensor (NaN if it has none), and how many of its
    values are not finite."""

    low: float
    high: float
    bad: int

    @staticmethod
    def of(tensor: Tensor) -> Range:
        values = tensor.detach()
        finite = values[values.isfinite()]
        bad = values.numel() - finite.numel()
        if not finite.numel():
            return Range(float("nan"), float("nan"), bad)
        low, high = finite.aminmax()
        return Range(float(low), float(high), bad)

    def __str__(self) -> str:
        text = f"{self.low:.4g} to {self.high:.4g}"
        return f"{text}, {self.bad} not finite" if self.bad else text


@dataclass(slots=True)
class Row:
    """One top of one layer: its values, and its gradient if one came back."""

    layer: str
    type: str
    top: str
    shape: tuple[int, ...]
    values: Range
    gradient: Range | None = None


@dataclass(slots=True)
class Examination:
    """All tops in the order of computation; ``first`` is a phrase naming the first place that is
    not finite, empty if there is none; ``loss`` the loss of the pass."""

    rows: list[Row]
    first: str = ""
    loss: float = 0.0


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that a pass on ``device`` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def examine(net: Net, evidence: Evidence) -> Examination:
    """Run a batch forward and backward again, layer by layer, and look at every number.

    "First" is in the order of computation: inputs, weights, outputs layer by layer, then gradients
    from the loss back. Parameters' gradients are left as they were.
    """
    result = Examination([])
    found = [f"input blob {name!r} is not" for name, blob in evidence.batch.items() if _bad(blob)]
    found += [
        f"layer {param.layer!r}: its weights ({param.name}) are not"
        for param in net.params
        if _bad(param.tensor)
    ]
    device = next(iter(evidence.batch.values())).device if evidence.batch else torch.device("cpu")
    with _observed(net, result.rows, found), _generators(evidence.generators, device):
        with torch.enable_grad():
            _, loss = net.run(dict(evidence.batch))
        result.loss = float(loss.detach())
        if loss.requires_grad:
            found += _backward(net, loss)
    result.first = f"{found[0]} finite" if found else ""
    return result


def _backward(net: Net, loss: Tensor) -> list[str]:
    """Gradients of parameters that are not finite; those of tops are noted by their hooks."""
    params = [param for param in net.params if param.tensor.requires_grad]
    tensors = [param.tensor for param in params]
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [
        f"layer {param.layer!r}: the gradient of {param.name} is not"
        for param, gradient in zip(params, gradients, strict=True)
        if gradient is not None and _bad(gradient)
    ]


def _bad(tensor: Tensor) -> bool:
    return not bool(torch.isfinite(tensor.detach()).all())


@contextmanager
def _observed(net: Net, rows: list[Row], found: list[str]) -> Iterator[None]:
    """While the block runs, each layer runs by itself and enters its tops."""
    handles = [step.layer.register_forward_hook(_watch(step, rows, found)) for step in net.steps]
    literal, net.literal = net.literal, True
    try:
        yield
    finally:
        net.literal = literal
        for handle in handles:
            handle.remove()


def _watch(step: Any, rows: list[Row], found: list[str]) -> Any:
    """A forward hook that enters tops, and their gradients on the way back."""

    def after(module: object, bottoms: object, result: Tensor | Sequence[Tensor]) -> None:
        tops = (result,) if isinstance(result, Tensor) else result
        for name, top in zip(step.tops, tops, strict=True):
            row = Row(step.name, step.type, name, tuple(top.shape), Range.of(top))
            rows.append(row)
            if row.values.bad:
                found.append(f"layer {step.name!r}: its output {name!r} is not")
            if top.requires_grad:
                top.register_hook(_watch_gradient(row, found))

    return after


def _watch_gradient(row: Row, found: list[str]) -> Any:
    def after(gradient: Tensor) -> None:
        row.gradient = Range.of(gradient)
        if row.gradient.bad:
            found.append(f"layer {row.layer!r}: the gradient of its output {row.top!r} is not")

    return after


@contextmanager
def _generators(states: Mapping[str, Tensor], device: torch.device) -> Iterator[None]:
    """Random numbers are drawn from ``states`` while the block runs; dropout is as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if "cpu" in states:
            torch.set_rng_state(states["cpu"])
        if "cuda" in states and device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], device)
        yield


def write_bundle(folder: Path, net: Net, evidence: Evidence, message: str) -> None:
    """Write net, weights, batch, keys and generators into ``folder``, for :func:`replay`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _NET, _fed(net))
    net.save(folder / _WEIGHTS)
    for name, group in ((_BATCH, evidence.batch), (_GENERATORS, evidence.generators)):
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in group.items()}, folder / name
        )
    (folder / _KEYS).write_text("".join(f"{key}\n" for key in evidence.keys))
    (folder / _MESSAGE).write_text(message + "\n")


def _fed(net: Net) -> NetParameter:
    """The layers that ran, with Input layers in the place of the data sources, which a bundle does
    without."""
    definition = net.to_message()
    sources = {id(step.spec): step for step in net.sources}
    running = {id(step.spec) for step in net.running}
    layers = []
    for step, layer in zip(net.order, definition.layer, strict=True):
        source = sources.get(id(step.spec))
        if source is not None:
            layer.Clear()
            layer.name, layer.type = source.name, "Input"
            layer.top.extend(source.tops)
            for shape in source.top_shapes:
                layer.input_param.shape.add().dim.extend(shape)
        if source is not None or id(step.spec) in running:
            layers.append(layer)
    kept = NetParameter()
    kept.CopyFrom(definition)
    del kept.layer[:]
    kept.layer.extend(layers)
    return kept


def read_message(folder: str | Path) -> str:
    """Why a bundle was written; DataError if ``folder`` is no bundle."""
    try:
        return (Path(folder) / _MESSAGE).read_text().strip()
    except OSError as error:
        raise DataError(
            f"{folder}: is no bundle of a run that stopped at NaN: {error.filename}: "
            f"{(error.strerror or 'cannot be read').lower()}"
        ) from None


def replay(folder: str | Path, device: str = "cpu") -> Examination:
    """Run a bundle again on ``device``.

    Random numbers, such as those of dropout, are those of the run if it was on the same kind of
    device.
    """
    folder = Path(folder)
    read_message(folder)
    net = Net(folder / _NET, phase="TRAIN", weights=folder / _WEIGHTS, device=device)
    batch = load_file(folder / _BATCH, device=device)
    generators = load_file(folder / _GENERATORS)
    return examine(net, Evidence(batch, generators))
