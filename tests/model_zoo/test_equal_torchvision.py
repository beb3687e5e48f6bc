"""The models that torchvision has too compute and learn the same with the same weights."""

from __future__ import annotations

import pytest
import torch

from cortado.model_zoo import index, zoo
from cortado.model_zoo.published_names import rules
from cortado.netdef import Net
from cortado.netdef.torch_names import to_weights
from cortado.proto.files import read_net
from support.torchvision_twins import (
    by_original_names,
    distance,
    loss_of,
    twin_of,
    undo_chance,
)

MODELS = [model for model in index.models().values() if model.torchvision]
#: The size of images in training: 64 pixels, unless a net needs more (the head in the middle of
#: Inception v3 all of its 299) or has so many parameters that half will do.
SIZES = {model.name: 32 if model.name.startswith("vgg") else 64 for model in MODELS}
SIZES |= {"alexnet": 96, "inception_v3": 299}
TOLERANCE = 1e-4


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_same_logits(model: index.Model) -> None:
    twin = twin_of(model).eval()
    net = zoo.load(model.name)
    report = net.load(to_weights(twin.state_dict(), net.steps, "twin", rules(model)))
    assert not report.untouched
    assert all(name.lower().startswith("aux") for name in report.ignored)
    x = torch.randn(1, *model.input)
    net.keep_blobs = True
    with torch.no_grad():
        net(data=x)
        wanted = twin(x)
    (scores,) = net.layer("prob").bottoms
    assert distance(net.blobs[scores].reshape(wanted.shape), wanted) <= TOLERANCE


@pytest.mark.parametrize("name", SIZES)
def test_same_loss_gradients_and_statistics(name: str) -> None:
    """One batch in training, in double precision: deep nets make much of a rounding."""
    model, size = index.find(name), SIZES[name]
    twin = twin_of(model, size).double().train()
    definition = read_net(model.net_file).message
    zoo.feed(definition, (2, 3, size, size))
    net = Net(definition, "TRAIN")
    report = net.load(to_weights(twin.state_dict(), net.steps, "twin", rules(model)))
    assert not report.untouched + report.ignored
    twin.load_state_dict(by_original_names(net, twin, model))  # both have it in single precision
    net.double()
    undo_chance(net)
    net.keep_blobs = True
    images = torch.rand(2, 3, size, size, dtype=torch.double) * 255
    label = torch.tensor([3.0, 7.0])
    net(bgr=images, label=label)
    net.loss.backward()

    way, prepared = model.preprocessing, net.blobs["data"].detach()
    mean, scale = (torch.tensor(v).double()[:, None, None] for v in (way.mean, way.scale))
    assert distance(prepared, (images.flip(1) - mean) * scale) < 1e-6
    loss = loss_of(twin, model, prepared, label.long())
    loss.backward()
    assert net.loss.item() == pytest.approx(loss.item(), rel=1e-6)

    for step in net.steps:  # so that the converter of weights brings gradients to torch's names
        for blob in step.layer.blobs:
            tensor = getattr(step.layer, blob.name)
            if blob.learnable:
                tensor.data = tensor.grad
    found = by_original_names(net, twin, model)
    largest = max(float(p.grad.norm()) for p in twin.parameters() if p.grad is not None)
    for key, parameter in twin.named_parameters():
        assert parameter.grad is not None
        error = float((found[key] - parameter.grad).norm())
        assert error <= 1e-5 * float(parameter.grad.norm()) + 1e-9 * largest, key
    for key, statistic in twin.named_buffers():
        if "running" in key:
            assert distance(found[key], statistic) <= 1e-6, key
