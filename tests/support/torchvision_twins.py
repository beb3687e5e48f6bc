"""torchvision's nets beside ours, with weights as training would leave them."""

from __future__ import annotations

import math

import torch
import torchvision
from torch import Tensor, nn

from cortado.model_zoo.index import Model
from cortado.model_zoo.published_names import rules
from cortado.netdef import Net
from cortado.netdef.state_dicts import StateDict
from cortado.netdef.torch_names import to_torch_names

#: How torchvision's training weighs the losses of auxiliary heads.
AUXILIARY = {"googlenet": 0.3, "inception_v3": 0.4}


def twin_of(model: Model, size: int = 0) -> nn.Module:
    """torchvision's net, without chance, with weights as far from their first values as training
    would bring; for images of ``size`` pixels if that is given."""
    options: dict[str, object] = {}
    if model.name in AUXILIARY:
        options["init_weights"] = False
    if size and model.name.startswith("vit"):
        options["image_size"] = size
    with torch.device("meta"):  # to draw its own first weights would take longer than the test
        net = torchvision.models.get_model(model.torchvision, weights=None, **options)
        if size:
            _fit_head(net, size)
    net.to_empty(device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            _fill(name, tensor)
    for module in net.modules():
        if type(module).__name__ in ("Dropout", "StochasticDepth"):
            module.p = 0.0
    return net


def _fill(name: str, tensor: Tensor) -> None:
    if name.endswith("num_batches_tracked"):
        tensor.zero_()
    elif name.endswith("layer_scale"):
        tensor.uniform_(0.1, 0.3)
    elif tensor.dim() > 1:
        bound = math.sqrt(6 / tensor[0].numel())
        tensor.uniform_(-bound, bound)
    elif name.endswith(("weight", "running_var")):
        tensor.uniform_(0.8, 1.2)
    else:
        tensor.uniform_(-0.1, 0.1)


def _fit_head(net: nn.Module, size: int) -> None:
    """Let the first product take the maps of small images as they are.

    AlexNet and VGG pool the maps to 7x7 (6x6) pixels, which those of 224 pixels have anyway; our
    definitions have no such layer.
    """
    pool = getattr(net, "avgpool", None)
    if not isinstance(pool, nn.AdaptiveAvgPool2d) or pool.output_size in (1, (1, 1)):
        return
    net.avgpool = nn.Identity()
    maps = net.features(torch.empty(1, 3, size, size))
    place = next(i for i, each in enumerate(net.classifier) if isinstance(each, nn.Linear))
    net.classifier[place] = nn.Linear(maps.numel(), net.classifier[place].out_features)


def undo_chance(net: Net) -> None:
    """Take dropout and left-out branches from a net."""
    for module in net.modules():
        if type(module).__name__ == "Dropout":
            module.forward = lambda x: x  # type: ignore[method-assign]
        if type(module).__name__ == "DropPath":
            module.active = False


def loss_of(twin: nn.Module, model: Model, images: Tensor, label: Tensor) -> Tensor:
    """What the original's training would minimise."""
    result = twin(images)
    if isinstance(result, Tensor):
        return nn.functional.cross_entropy(result, label)
    loss = nn.functional.cross_entropy(result.logits, label)
    for name, scores in result._asdict().items():
        if name.startswith("aux"):
            loss = loss + AUXILIARY[model.name] * nn.functional.cross_entropy(scores, label)
    return loss


def by_original_names(net: Net, twin: nn.Module, model: Model) -> StateDict:
    """The parameters of ``net`` by torchvision's names."""
    return to_torch_names(net.layer_blobs(), net.steps, twin.state_dict(), rules(model))


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())
