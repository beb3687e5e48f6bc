"""The nets that are timed: models of the zoo, with images and labels from memory."""

from __future__ import annotations

from ...model_zoo import index
from ...proto.caffe_pb2 import LayerParameter, NetParameter
from ...proto.files import read_net

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


def definition(name: str, batch: int = 0) -> NetParameter:
    """The model's net for ``batch`` images (0: the usual number), as they reach its first layer.

    Images and labels come through an Input layer, in place of databases and what prepares their
    images; Accuracy is left out. Neither is part of what a training step or a pass costs.
    """
    model = index.find(name)
    net = read_net(model.net_file).message
    shape = (batch or BATCHES.get(name, USUAL_BATCH), *model.input)
    fed = 1 + max(place for place, layer in enumerate(net.layer) if "data" in layer.top)
    kept = [layer for layer in net.layer[fed:] if layer.type != "Accuracy"]
    source = LayerParameter(name="data", type="Input", top=["data", "label"])
    source.input_param.shape.add(dim=shape)
    source.input_param.shape.add(dim=shape[:1])
    del net.layer[:]
    net.layer.extend([source, *kept])
    return net
