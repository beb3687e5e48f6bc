"""The models that torchvision has too compute the same with the same weights."""

from __future__ import annotations

import inspect

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cortado.model_zoo import index, zoo
from cortado.netdef.torch_names import to_torch_names, to_weights

MODELS = [model for model in index.models().values() if model.torchvision]
#: For the gradients, which take the most time: one of each family.
LEARNING = (
    "alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet18", "resnext50_32x4d",
    "densenet121", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0",
    "efficientnet_b0", "convnext_tiny", "vit_b_16",
)  # fmt: skip
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
    model = index.find(name)
    twin = reference(model).train()
    net = zoo.load(name, phase="TRAIN", batch=2)
    net.load(to_weights(twin.state_dict(), net.steps, "twin", zoo.rules(model)))
    undo_chance(net)
    images = torch.rand(2, *model.input) * 255  # blue, green, red
    label = torch.tensor([3.0, 7.0])
    net(bgr=images, label=label)
    net.loss.backward()
    way = model.preprocessing
    mean, scale = (torch.tensor(value)[:, None, None] for value in (way.mean, way.scale))
    loss = loss_of(twin, (images.flip(1) - mean) * scale, label.long())
    loss.backward()
    assert float(net.loss) == pytest.approx(float(loss), rel=TOLERANCE)
    for step in net.steps:  # so that the converter of weights brings gradients to torch's names
        for blob in step.layer.blobs:
            tensor = getattr(step.layer, blob.name)
            if blob.learnable:
                tensor.data = tensor.grad
    state = twin.state_dict()
    gradients = to_torch_names(net.layer_blobs(), net.steps, state, zoo.rules(model))
    largest = max(float(p.grad.norm()) for p in twin.parameters() if p.grad is not None)
    for key, parameter in twin.named_parameters():
        assert parameter.grad is not None
        error = float((gradients[key] - parameter.grad).norm())
        # A convolution's bias before BatchNorm has no gradient but rounding.
        assert error <= 1e-3 * float(parameter.grad.norm()) + 1e-5 * largest, key
