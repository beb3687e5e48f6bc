"""The nets that are timed: models of the zoo, with images and labels from memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layers.batch_norm import BatchNorm
from ...model_zoo import index
from ...netdef import Net, blueprint
from ...netdef.deploy import deploy
from ...proto.caffe_pb2 import LayerParameter, NetParameter
from ...proto.files import read_net
from ...proto.positions import Document

#: The models that are timed by default, with the batch that is usual on a CPU.
BATCHES = {
    "lenet": 64,
    "cifar10_quick": 100,
    "bvlc_alexnet": 16,
    "bvlc_googlenet": 16,
    "resnet50_caffe": 8,
    "vgg16": 4,
}
#: The batch of every other model.
USUAL_BATCH = 8


def definition(name: str, batch: int = 0, training: bool = True) -> NetParameter:
    """The model's net for ``batch`` images (0: the usual number), as they reach its first layer.

    Images and labels come through an Input layer, in place of databases and what prepares their
    images; Accuracy is left out. Neither is part of what a training step costs. For inference it is
    the net that is deployed, without labels and loss.
    """
    model = index.find(name)
    document = read_net(model.net_file)
    shape = (batch or BATCHES.get(name, USUAL_BATCH), *model.input)
    if not training:
        return deploy(document, {"data": shape})
    net = document.message
    fed = 1 + max(place for place, layer in enumerate(net.layer) if "data" in layer.top)
    kept = [layer for layer in net.layer[fed:] if layer.type != "Accuracy"]
    source = LayerParameter(name="data", type="Input", top=["data", "label"])
    source.input_param.shape.add(dim=shape)
    source.input_param.shape.add(dim=shape[:1])
    del net.layer[:]
    net.layer.extend([source, *kept])
    return net


def images(document: Document[NetParameter], phase: str = "TEST") -> int:
    """How many images a batch of the net has."""
    sources = blueprint.draw(document, phase).sources
    shapes = [shape for source in sources for shape in source.top_shapes]
    return shapes[0][0] if shapes else 1


def fixed_batch(net: Net) -> dict[str, Tensor]:
    """One batch for each input of ``net``: seeded noise, or 0 where it has one number an image."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(shape, generator=generator) if len(shape) > 2 else torch.zeros(shape)
        for name, shape in net.inputs.items()
    }


@torch.no_grad()
def ready(net: Net) -> Net:
    """``net`` with the statistics of its BatchNorm layers as if it had been trained.

    Without any, variances of 0 would make every value infinite; those of two images do.
    """
    blobs = {name: blob[:2] for name, blob in fixed_batch(net).items()}
    for step in net.steps:
        bottoms = [blobs[name] for name in step.bottoms]
        layer = step.layer
        if isinstance(layer, BatchNorm):
            axes = [axis for axis in range(bottoms[0].dim()) if axis != 1]
            variance, mean = torch.var_mean(bottoms[0], axes)
            layer.mean.copy_(mean)
            layer.variance.copy_(variance)
            layer.scale_factor.fill_(1)
        result = layer(*bottoms)
        tops = (result,) if isinstance(result, Tensor) else result
        blobs.update(zip(step.tops, tops, strict=True))
    return net


def fingerprint(scores: Tensor) -> float:
    """A number that differs where ``scores`` differ, in value or in order."""
    flat = scores.double().flatten()
    weights = torch.linspace(1, 2, flat.numel(), dtype=torch.float64)
    return float((flat * weights).sum() / flat.abs().sum())
