"""The nets that are timed by name: prototxt made from their published facts, with any batch size.

Inputs come from Input layers, so that no database is needed; each ends in SoftmaxWithLoss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Named:
    """A net known by name: how its text is made and the batch that is usual on a CPU."""

    write: Callable[[Writer], None]
    batch: int
    channels: int
    size: int

    def text(self, batch: int = 0) -> str:
        """Its prototxt for ``batch`` images (0: the usual number)."""
        writer = Writer(batch or self.batch, self.channels, self.size)
        self.write(writer)
        return writer.text


class Writer:
    """Collects layers; ``blob`` is the top of the last one, and the bottom of the next."""

    def __init__(self, batch: int, channels: int, size: int) -> None:
        dims = " ".join(f"dim: {each}" for each in (batch, channels, size, size))
        self.text = (
            f'layer {{ name: "data" type: "Input" top: "data" top: "label" input_param '
            f"{{ shape {{ {dims} }} shape {{ dim: {batch} }} }} }}\n"
        )
        self.blob = "data"

    def layer(self, kind: str, name: str, more: str = "", *bottoms: str, top: str = "") -> str:
        wires = "".join(f' bottom: "{blob}"' for blob in bottoms or (self.blob,))
        self.blob = top or name
        self.text += f'layer {{ name: "{name}" type: "{kind}"{wires} top: "{self.blob}" {more} }}\n'
        return self.blob

    def conv(self, name: str, outputs: int, kernel: int, more: str = "") -> str:
        fields = f"num_output: {outputs} kernel_size: {kernel} {more}"
        filler = 'weight_filler { type: "msra" }'
        return self.layer("Convolution", name, f"convolution_param {{ {fields} {filler} }}")

    def relu(self) -> str:
        return self.layer("ReLU", f"relu_{self.blob}", top=self.blob)

    def pool(self, name: str, method: str, kernel: int, stride: int, more: str = "") -> str:
        fields = f"pool: {method} kernel_size: {kernel} stride: {stride} {more}"
        return self.layer("Pooling", name, f"pooling_param {{ {fields} }}")

    def norm(self, name: str) -> str:
        fields = "local_size: 5 alpha: 0.0001 beta: 0.75"
        return self.layer("LRN", name, f"lrn_param {{ {fields} }}")

    def ip(self, name: str, outputs: int) -> str:
        fields = f'num_output: {outputs} weight_filler {{ type: "xavier" }}'
        return self.layer("InnerProduct", name, f"inner_product_param {{ {fields} }}")

    def dropout(self, ratio: float) -> str:
        fields = f"dropout_param {{ dropout_ratio: {ratio} }}"
        return self.layer("Dropout", f"drop_{self.blob}", fields, top=self.blob)

    def loss(self, name: str = "loss", weight: float = 1.0) -> str:
        more = f"loss_weight: {weight}"
        return self.layer("SoftmaxWithLoss", name, more, self.blob, "label")


def lenet(net: Writer) -> None:
    for index, outputs in ((1, 20), (2, 50)):
        net.conv(f"conv{index}", outputs, 5)
        net.pool(f"pool{index}", "MAX", 2, 2)
    net.ip("ip1", 500)
    net.relu()
    net.ip("ip2", 10)
    net.loss()


def cifar10_quick(net: Writer) -> None:
    net.conv("conv1", 32, 5, "pad: 2")
    net.pool("pool1", "MAX", 3, 2)
    net.relu()
    for index, outputs in ((2, 32), (3, 64)):
        net.conv(f"conv{index}", outputs, 5, "pad: 2")
        net.relu()
        net.pool(f"pool{index}", "AVE", 3, 2)
    net.ip("ip1", 64)
    net.ip("ip2", 10)
    net.loss()


def _classifier(net: Writer) -> None:
    for index in (6, 7):
        net.ip(f"fc{index}", 4096)
        net.relu()
        net.dropout(0.5)
    net.ip("fc8", 1000)
    net.loss()


def alexnet(net: Writer) -> None:
    for index, outputs, kernel, more in ((1, 96, 11, "stride: 4"), (2, 256, 5, "pad: 2 group: 2")):
        net.conv(f"conv{index}", outputs, kernel, more)
        net.relu()
        net.norm(f"norm{index}")
        net.pool(f"pool{index}", "MAX", 3, 2)
    for index, outputs, more in ((3, 384, ""), (4, 384, "group: 2"), (5, 256, "group: 2")):
        net.conv(f"conv{index}", outputs, 3, f"pad: 1 {more}")
        net.relu()
    net.pool("pool5", "MAX", 3, 2)
    _classifier(net)


def vgg16(net: Writer) -> None:
    for stage, (count, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for index in range(1, count + 1):
            net.conv(f"conv{stage}_{index}", outputs, 3, "pad: 1")
            net.relu()
        net.pool(f"pool{stage}", "MAX", 2, 2)
    _classifier(net)


#: Per inception unit: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _inception(net: Writer, unit: str) -> None:
    source = net.blob
    one, reduce3, three, reduce5, five, project = INCEPTIONS[unit]
    ends = []
    for parts in (
        (("1x1", one, 1, ""),),
        (("3x3_reduce", reduce3, 1, ""), ("3x3", three, 3, "pad: 1")),
        (("5x5_reduce", reduce5, 1, ""), ("5x5", five, 5, "pad: 2")),
        (("pool_proj", project, 1, ""),),
    ):
        net.blob = source
        if parts[0][0] == "pool_proj":
            net.pool(f"inception_{unit}/pool", "MAX", 3, 1, "pad: 1")
        for name, outputs, kernel, more in parts:
            net.conv(f"inception_{unit}/{name}", outputs, kernel, more)
            net.relu()
        ends.append(net.blob)
    net.layer("Concat", f"inception_{unit}/output", "", *ends)


def _auxiliary(net: Writer, index: int) -> None:
    trunk = net.blob
    net.pool(f"loss{index}/ave_pool", "AVE", 5, 3)
    net.conv(f"loss{index}/conv", 128, 1)
    net.relu()
    net.ip(f"loss{index}/fc", 1024)
    net.relu()
    net.dropout(0.7)
    net.ip(f"loss{index}/classifier", 1000)
    net.loss(f"loss{index}/loss", 0.3)
    net.blob = trunk


def googlenet(net: Writer) -> None:
    net.conv("conv1/7x7_s2", 64, 7, "pad: 3 stride: 2")
    net.relu()
    net.pool("pool1/3x3_s2", "MAX", 3, 2)
    net.norm("pool1/norm1")
    net.conv("conv2/3x3_reduce", 64, 1)
    net.relu()
    net.conv("conv2/3x3", 192, 3, "pad: 1")
    net.relu()
    net.norm("conv2/norm2")
    net.pool("pool2/3x3_s2", "MAX", 3, 2)
    for unit in INCEPTIONS:
        if unit in ("4a", "5a"):
            net.pool(f"pool{int(unit[0]) - 1}/3x3_s2", "MAX", 3, 2)
        _inception(net, unit)
        if unit in ("4a", "4d"):
            _auxiliary(net, 1 if unit == "4a" else 2)
    net.pool("pool5/7x7_s1", "AVE", 7, 1)
    net.dropout(0.4)
    net.ip("loss3/classifier", 1000)
    net.loss()


def _normalised(net: Writer, name: str, outputs: int, kernel: int, more: str = "") -> str:
    net.conv(name, outputs, kernel, f"bias_term: false {more}")
    net.layer("BatchNorm", f"bn_{name}", top=name)
    return net.layer("Scale", f"scale_{name}", "scale_param { bias_term: true }", top=name)


def resnet50(net: Writer) -> None:
    _normalised(net, "conv1", 64, 7, "pad: 3 stride: 2")
    net.relu()
    net.pool("pool1", "MAX", 3, 2)
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for block in range(blocks):
            name = f"res{stage}{'abcdef'[block]}"
            stride = f"stride: {2 if stage > 2 and block == 0 else 1}"
            source = shortcut = net.blob
            if block == 0:
                shortcut = _normalised(net, f"{name}_branch1", 4 * width, 1, stride)
                net.blob = source
            _normalised(net, f"{name}_branch2a", width, 1, stride)
            net.relu()
            _normalised(net, f"{name}_branch2b", width, 3, "pad: 1")
            net.relu()
            last = _normalised(net, f"{name}_branch2c", 4 * width, 1)
            net.layer("Eltwise", name, "", shortcut, last)
            net.relu()
    net.pool("pool5", "AVE", 7, 1)
    net.ip("fc1000", 1000)
    net.loss()


NETS = {
    "lenet": Named(lenet, 64, 1, 28),
    "cifar10_quick": Named(cifar10_quick, 100, 3, 32),
    "alexnet": Named(alexnet, 16, 3, 227),
    "googlenet": Named(googlenet, 16, 3, 224),
    "resnet50": Named(resnet50, 8, 3, 224),
    "vgg16": Named(vgg16, 4, 3, 224),
}
