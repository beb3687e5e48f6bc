"""The models that torchvision has too compute the same with the same weights."""

from __future__ import annotations

import inspect

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cortado.model_zoo import index, zoo
from cortado.netdef import Net
from cortado.netdef.state_dicts import StateDict
from cortado.netdef.torch_names import to_torch_names, to_weights
from cortado.proto.files import read_net

MODELS = [model for model in index.models().values() if model.torchvision]
#: For the gradients, which take the most time: one of each family, and the size of its images,
#: which are smaller where the net can take them so.
LEARNING = {
    "alexnet": 224, "vgg11_bn": 224, "googlenet": 96, "inception_v3": 299, "resnet18": 96,
    "resnext50_32x4d": 96, "densenet121": 96, "squeezenet1_1": 96, "mobilenet_v2": 96,
    "mobilenet_v3_small": 96, "shufflenet_v2_x1_0": 96, "efficientnet_b0": 96,
    "convnext_tiny": 96, "vit_b_16": 224,
}  # fmt: skip
TOLERANCE = 1e-4


def reference(model: index.Model, **options: object) -> nn.Module:
    """torchvision's net, with weights as far from their first values as training would bring."""
    build = torchvision.models.get_model_builder(model.torchvision)
    parameters = inspect.signature(build).parameters
    torch.manual_seed(1)
    if model.torchvision in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    assert "weights" in parameters
    net = build(weights=None, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
        # chance has no place in a comparison
        if type(module).__name__ in ("Dropout", "StochasticDepth"):
            module.p = 0.0
    for name, parameter in net.named_parameters():
        if not parameter.any() or name.endswith("layer_scale"):  # heads that start at 0
            nn.init.uniform_(parameter, 0.1, 0.3)
    return net


def difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_same_logits(model: index.Model) -> None:
    twin = reference(model).eval()
    net = zoo.load(model.name)
    weights = to_weights(twin.state_dict(), net.steps, "twin", zoo.rules(model))
    report = net.load(weights)
    assert not report.untouched
    assert all(name.lower().startswith("aux") for name in report.ignored)
    x = torch.randn(1, *model.input)
    net.keep_blobs = True
    with torch.no_grad():
        net(data=x)
        wanted = twin(x)
    (scores,) = net.layer("prob").bottoms
    assert difference(net.blobs[scores].reshape(wanted.shape), wanted) <= TOLERANCE
    learned = sum(parameter.numel() for name, parameter in twin.named_parameters()
                  if not name.lower().startswith("aux"))  # fmt: skip
    assert learned == model.parameters


def undo_chance(net: nn.Module) -> None:
    """Take dropout and left-out branches from a net."""
    for module in net.modules():
        if type(module).__name__ == "Dropout":
            module.forward = lambda x: x  # type: ignore[method-assign]
        if type(module).__name__ == "DropPath":
            module.active = False


def loss_of(twin: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """What the original's training would minimise."""
    result = twin(x)
    if isinstance(result, Tensor):
        return nn.functional.cross_entropy(result, label)
    auxiliary = 0.3 if hasattr(result, "aux_logits1") else 0.4
    parts = [(1.0, result.logits)] + [
        (auxiliary, value) for name, value in result._asdict().items() if name.startswith("aux")
    ]
    return sum(weight * nn.functional.cross_entropy(value, label) for weight, value in parts)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_same_loss_and_gradients(name: str) -> None:
    """In double precision: deep nets with BatchNorm make much of a rounding."""
    model = index.find(name)
    twin = reference(model).double().train()
    definition = read_net(model.net_file).message
    zoo.feed(definition, (2, 3, LEARNING[name], LEARNING[name]))
    net = Net(definition, "TRAIN")
    net.load(to_weights(twin.state_dict(), net.steps, "twin", zoo.rules(model)))
    twin.load_state_dict(as_named(net, twin, model))  # both have it in single precision
    net.double()
    undo_chance(net)
    images = torch.rand(2, 3, LEARNING[name], LEARNING[name], dtype=torch.double) * 255
    label = torch.tensor([3.0, 7.0])
    net(bgr=images, label=label)
    net.loss.backward()
    way = model.preprocessing
    mean, scale = (torch.tensor(v).double()[:, None, None] for v in (way.mean, way.scale))
    loss = loss_of(twin, (images.flip(1) - mean) * scale, label.long())
    loss.backward()
    assert net.loss.item() == pytest.approx(loss.item(), rel=TOLERANCE)
    for step in net.steps:  # so that the converter of weights brings gradients to torch's names
        for blob in step.layer.blobs:
            tensor = getattr(step.layer, blob.name)
            if blob.learnable:
                tensor.data = tensor.grad
    gradients = as_named(net, twin, model)
    largest = max(float(p.grad.norm()) for p in twin.parameters() if p.grad is not None)
    for key, parameter in twin.named_parameters():
        assert parameter.grad is not None
        error = float((gradients[key] - parameter.grad).norm())
        assert error <= 1e-3 * float(parameter.grad.norm()) + 1e-6 * largest, key


def as_named(net: Net, twin: nn.Module, model: index.Model) -> StateDict:
    """The parameters of ``net`` by torchvision's names."""
    return to_torch_names(net.layer_blobs(), net.steps, twin.state_dict(), zoo.rules(model))
