"""Finding the layer where numbers stop being finite, and bundles that show it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..netdef import Net
from ..proto.files import write_text

_NET, _WEIGHTS, _BATCH, _MESSAGE = "net.prototxt", "weights.caffemodel", "batch.safetensors", "why"


def first_not_finite(net: Net, batch: Mapping[str, Tensor]) -> str:
    """Run ``batch`` forward and backward; a phrase naming the first bad place, or "".

    "First" is in the order of computation: inputs, weights, outputs layer by layer, then gradients
    from the loss back. Parameters' gradients are left as they were.
    """
    for name, tensor in batch.items():
        if _bad(tensor):
            return f"input blob {name!r} is not finite"
    for param in net.params:
        if _bad(param.tensor):
            return f"layer {param.layer!r}: its weights ({param.name}) are not finite"
    found: list[str] = []
    handles = [step.layer.register_forward_hook(_watch(step, found)) for step in net.steps]
    try:
        with torch.enable_grad():
            _, loss = net.run(dict(batch))
        if not found and loss.requires_grad:
            tensors = [param.tensor for param in net.params if param.tensor.requires_grad]
            gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
            names = [param for param in net.params if param.tensor.requires_grad]
            for param, gradient in zip(names, gradients, strict=True):
                if gradient is not None and _bad(gradient):
                    found.append(f"layer {param.layer!r}: the gradient of {param.name} is not")
    finally:
        for handle in handles:
            handle.remove()
    return f"{found[0]} finite" if found else ""


def _bad(tensor: Tensor) -> bool:
    return not bool(torch.isfinite(tensor.detach()).all())


def _watch(step: Any, found: list[str]) -> Any:
    """A forward hook that notes bad outputs, and gradients that become bad on the way back."""

    def after(module: object, bottoms: object, result: Tensor | Sequence[Tensor]) -> None:
        tops = (result,) if isinstance(result, Tensor) else result
        for name, top in zip(step.tops, tops, strict=True):
            if _bad(top):
                found.append(f"layer {step.name!r}: its output {name!r} is not")
            if top.requires_grad:
                place = f"layer {step.name!r}: the gradient of its output {name!r} is not"
                top.register_hook(lambda g, place=place: found.append(place) if _bad(g) else None)

    return after


def batch_keys(net: Net) -> list[str]:
    """The keys of the records in the last batch, of sources that remember them."""
    keys: list[str] = []
    for step in net.sources:
        keys += [str(key) for key in getattr(step.source, "last_keys", ())]
    return keys


def write_bundle(folder: Path, net: Net, batch: Mapping[str, Tensor], message: str) -> None:
    """Write net, weights and batch into ``folder``, for :func:`replay`."""
    folder.mkdir(parents=True, exist_ok=True)
    definition = net.to_message()
    write_text(folder / _NET, definition)
    net.save(folder / _WEIGHTS)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in batch.items()}
    save_file(tensors, folder / _BATCH)
    (folder / _MESSAGE).write_text(message + "\n")


def replay(folder: str | Path) -> list[str]:
    """Run a bundle layer by layer: a line for each top with its range, then the first bad place."""
    folder = Path(folder)
    net = Net(folder / _NET, phase="TRAIN", weights=folder / _WEIGHTS)
    batch = load_file(folder / _BATCH)
    lines: list[str] = []

    def describe(step: Any) -> Any:
        def after(module: object, bottoms: object, result: Tensor | Sequence[Tensor]) -> None:
            tops = (result,) if isinstance(result, Tensor) else result
            for name, top in zip(step.tops, tops, strict=True):
                low, high = (float(bound) for bound in top.detach().aminmax())
                finite = "" if not _bad(top) else "  <- not finite"
                lines.append(f"{step.name} -> {name}: from {low:g} to {high:g}{finite}")

        return after

    handles = [step.layer.register_forward_hook(describe(step)) for step in net.steps]
    with torch.no_grad():
        net.run(batch)
    for handle in handles:
        handle.remove()
    return [*lines, first_not_finite(net, batch) or "everything is finite"]
