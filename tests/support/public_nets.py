"""The public nets of BVLC Caffe whose numbers are recorded, built from their published facts.

Each function gives the prototxt text of one net for one phase of deployment: data comes from
Input layers, as in the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Shape = Sequence[int]
NETS: dict[str, Callable[[], str]] = {}


def net(function: Callable[[], str]) -> Callable[[], str]:
    NETS[function.__name__] = function
    return function


class Writer:
    """Collects layers; ``blob`` is the top of the last one, the bottom of the next."""

    def __init__(self, **inputs: Shape) -> None:
        self.text = ""
        self.blob = ""
        self.suffix = ""  # appended to the names of layers and blobs
        self.shared = False  # give parameters names, so that a twin shares them
        for name, shape in inputs.items():
            dims = " ".join(f"dim: {size}" for size in shape)
            self.layer("Input", name, (), f"input_param {{ shape {{ {dims} }} }}")

    def layer(
        self, kind: str, name: str, bottoms: Sequence[str], more: str = "", top: str = ""
    ) -> Writer:
        wires = "".join(f' bottom: "{blob}"' for blob in bottoms)
        self.blob = top or name
        self.text += f'layer {{ name: "{name}" type: "{kind}"{wires} top: "{self.blob}" {more} }}\n'
        return self

    def weighted(self, kind: str, name: str, message: str) -> Writer:
        names = (f'param {{ name: "{name}_{blob}" }} ' for blob in "wb")
        spec = "".join(names) if self.shared else ""
        return self.layer(kind, name + self.suffix, [self.blob], spec + message)

    def conv(self, name: str, outputs: int, kernel: int, more: str = "") -> Writer:
        message = f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} {more} }}"
        return self.weighted("Convolution", name, message)

    def ip(self, name: str, outputs: int) -> Writer:
        return self.weighted(
            "InnerProduct", name, f"inner_product_param {{ num_output: {outputs} }}"
        )

    def pool(self, name: str, method: str, kernel: int, stride: int, more: str = "") -> Writer:
        message = f"pool: {method} kernel_size: {kernel} stride: {stride} {more}"
        return self.layer(
            "Pooling", name + self.suffix, [self.blob], f"pooling_param {{ {message} }}"
        )

    def relu(self, name: str) -> Writer:
        return self.layer("ReLU", name + self.suffix, [self.blob], top=self.blob)

    def dropout(self, name: str, ratio: float) -> Writer:
        message = f"dropout_param {{ dropout_ratio: {ratio} }}"
        return self.layer("Dropout", name, [self.blob], message, top=self.blob)

    def norm(self, name: str, more: str = "local_size: 5 alpha: 0.0001 beta: 0.75") -> Writer:
        return self.layer("LRN", name, [self.blob], f"lrn_param {{ {more} }}")

    def classified(self, *, trained: bool) -> str:
        """End with accuracy and loss against ``label``, or with probabilities."""
        scores = self.blob
        if not trained:
            return self.layer("Softmax", "prob", [scores]).text
        self.layer("Accuracy", "accuracy", [scores, "label"])
        return self.layer("SoftmaxWithLoss", "loss", [scores, "label"]).text


def _writer(trained: bool, size: int, channels: int = 3, batch: int = 1) -> Writer:
    data = (batch, channels, size, size)
    writer = Writer(data=data, label=(batch,)) if trained else Writer(data=data)
    writer.blob = "data"
    return writer


def _alexnet_trunk(writer: Writer, pool_first: bool) -> Writer:
    """AlexNet's five convolutions; CaffeNet pools before it normalises."""
    for index, message in ((1, (96, 11, "stride: 4")), (2, (256, 5, "pad: 2 group: 2"))):
        writer.conv(f"conv{index}", *message).relu(f"relu{index}")
        if pool_first:
            writer.pool(f"pool{index}", "MAX", 3, 2).norm(f"norm{index}")
        else:
            writer.norm(f"norm{index}").pool(f"pool{index}", "MAX", 3, 2)
    writer.conv("conv3", 384, 3, "pad: 1").relu("relu3")
    writer.conv("conv4", 384, 3, "pad: 1 group: 2").relu("relu4")
    writer.conv("conv5", 256, 3, "pad: 1 group: 2").relu("relu5")
    return writer.pool("pool5", "MAX", 3, 2)


def _alexnet(trained: bool, pool_first: bool, head: str = "fc8", outputs: int = 1000) -> Writer:
    writer = _alexnet_trunk(_writer(trained, 227), pool_first)
    for index in (6, 7):
        writer.ip(f"fc{index}", 4096).relu(f"relu{index}").dropout(f"drop{index}", 0.5)
    return writer.ip(head, outputs)


@net
def bvlc_alexnet() -> str:
    return _alexnet(False, pool_first=False).classified(trained=False)


@net
def bvlc_alexnet_train_val() -> str:
    return _alexnet(True, pool_first=False).classified(trained=True)


@net
def bvlc_reference_caffenet() -> str:
    return _alexnet(False, pool_first=True).classified(trained=False)


@net
def bvlc_reference_rcnn_ilsvrc13() -> str:
    return _alexnet(False, True, "fc-rcnn", 200).text


@net
def finetune_flickr_style() -> str:
    return _alexnet(False, True, "fc8_flickr", 20).classified(trained=False)


@net
def bvlc_caffenet_full_conv() -> str:
    writer = _alexnet_trunk(_writer(False, 451), pool_first=True)
    for index, kernel in ((6, 6), (7, 1)):
        writer.conv(f"fc{index}-conv", 4096, kernel).relu(f"relu{index}")
        writer.dropout(f"drop{index}", 0.5)
    return writer.conv("fc8-conv", 1000, 1).classified(trained=False)


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


def _inception(writer: Writer, unit: str) -> None:
    name = f"inception_{unit}/"
    one, reduce3, three, reduce5, five, project = INCEPTIONS[unit]
    source = writer.blob

    def branch(*convolutions: tuple[str, int, int, int]) -> str:
        for part, outputs, kernel, pad in convolutions:
            writer.conv(name + part, outputs, kernel, f"pad: {pad}" if pad else "")
            writer.relu(f"{name}relu_{part}")
        return writer.blob

    ends = [branch(("1x1", one, 1, 0))]
    writer.blob = source
    ends.append(branch(("3x3_reduce", reduce3, 1, 0), ("3x3", three, 3, 1)))
    writer.blob = source
    ends.append(branch(("5x5_reduce", reduce5, 1, 0), ("5x5", five, 5, 2)))
    writer.blob = source
    writer.pool(f"{name}pool", "MAX", 3, 1, "pad: 1")
    ends.append(branch(("pool_proj", project, 1, 0)))
    writer.layer("Concat", f"{name}output", ends)


def _google_losses(writer: Writer, index: int, weight: float) -> None:
    scores = writer.blob
    head = f"loss{index}"
    name = f"{head}/loss" if index < 3 else "loss3/loss3"
    writer.layer(
        "SoftmaxWithLoss", name, [scores, "label"], f"loss_weight: {weight}", f"{head}/loss{index}"
    )
    writer.layer("Accuracy", f"{head}/top-1", [scores, "label"])
    writer.layer("Accuracy", f"{head}/top-5", [scores, "label"], "accuracy_param { top_k: 5 }")


def _auxiliary(writer: Writer, index: int) -> None:
    head = f"loss{index}"
    trunk = writer.blob
    writer.pool(f"{head}/ave_pool", "AVE", 5, 3)
    writer.conv(f"{head}/conv", 128, 1).relu(f"{head}/relu_conv")
    writer.ip(f"{head}/fc", 1024).relu(f"{head}/relu_fc").dropout(f"{head}/drop_fc", 0.7)
    writer.ip(f"{head}/classifier", 1000)
    _google_losses(writer, index, 0.3)
    writer.blob = trunk


def _googlenet(trained: bool) -> str:
    writer = _writer(trained, 224)
    writer.conv("conv1/7x7_s2", 64, 7, "pad: 3 stride: 2").relu("conv1/relu_7x7")
    writer.pool("pool1/3x3_s2", "MAX", 3, 2).norm("pool1/norm1")
    writer.conv("conv2/3x3_reduce", 64, 1).relu("conv2/relu_3x3_reduce")
    writer.conv("conv2/3x3", 192, 3, "pad: 1").relu("conv2/relu_3x3")
    writer.norm("conv2/norm2").pool("pool2/3x3_s2", "MAX", 3, 2)
    for unit in INCEPTIONS:
        if unit in ("4a", "5a"):
            writer.pool(f"pool{int(unit[0]) - 1}/3x3_s2", "MAX", 3, 2)
        _inception(writer, unit)
        if trained and unit in ("4a", "4d"):
            _auxiliary(writer, 1 if unit == "4a" else 2)
    writer.pool("pool5/7x7_s1", "AVE", 7, 1).dropout("pool5/drop_7x7_s1", 0.4)
    writer.ip("loss3/classifier", 1000)
    if trained:
        _google_losses(writer, 3, 1)
        return writer.text
    return writer.classified(trained=False)


@net
def bvlc_googlenet() -> str:
    return _googlenet(False)


@net
def bvlc_googlenet_train_val() -> str:
    return _googlenet(True)


def _cifar10_full(trained: bool) -> str:
    writer = _writer(trained, 32, batch=2 if trained else 1)
    within = "local_size: 3 alpha: 5e-05 beta: 0.75 norm_region: WITHIN_CHANNEL"
    writer.conv("conv1", 32, 5, "pad: 2").pool("pool1", "MAX", 3, 2).relu("relu1")
    writer.norm("norm1", within)
    writer.conv("conv2", 32, 5, "pad: 2").relu("relu2").pool("pool2", "AVE", 3, 2)
    writer.norm("norm2", within)
    writer.conv("conv3", 64, 5, "pad: 2").relu("relu3").pool("pool3", "AVE", 3, 2)
    return writer.ip("ip1", 10).classified(trained=trained)


@net
def cifar10_full() -> str:
    return _cifar10_full(False)


@net
def cifar10_full_train_test() -> str:
    return _cifar10_full(True)


def _cifar10_sigmoid(normalised: bool) -> str:
    writer = _writer(True, 32, batch=2)

    def convolve(index: int, outputs: int) -> None:
        writer.conv(f"conv{index}", outputs, 5, "pad: 2" + " bias_term: false" * normalised)
        if index == 1:
            writer.pool("pool1", "MAX", 3, 2)
        if normalised:
            writer.layer("BatchNorm", f"bn{index}", [writer.blob])
        writer.layer("Sigmoid", f"Sigmoid{index}", [writer.blob])
        if index > 1:
            writer.pool(f"pool{index}", "AVE", 3, 2)

    for index, outputs in ((1, 32), (2, 32), (3, 64)):
        convolve(index, outputs)
    return writer.ip("ip1", 10).classified(trained=True)


@net
def cifar10_full_sigmoid_train_test() -> str:
    return _cifar10_sigmoid(False)


@net
def cifar10_full_sigmoid_train_test_bn() -> str:
    return _cifar10_sigmoid(True)


def _cifar10_quick(trained: bool) -> str:
    writer = _writer(trained, 32, batch=2 if trained else 1)
    writer.conv("conv1", 32, 5, "pad: 2").pool("pool1", "MAX", 3, 2).relu("relu1")
    for index, outputs in ((2, 32), (3, 64)):
        writer.conv(f"conv{index}", outputs, 5, "pad: 2").relu(f"relu{index}")
        writer.pool(f"pool{index}", "AVE", 3, 2)
    return writer.ip("ip1", 64).ip("ip2", 10).classified(trained=trained)


@net
def cifar10_quick() -> str:
    return _cifar10_quick(False)


@net
def cifar10_quick_train_test() -> str:
    return _cifar10_quick(True)


def _lenet_body(writer: Writer) -> Writer:
    writer.conv("conv1", 20, 5).pool("pool1", "MAX", 2, 2)
    writer.conv("conv2", 50, 5).pool("pool2", "MAX", 2, 2)
    return writer.ip("ip1", 500).relu("relu1").ip("ip2", 10)


def _lenet(trained: bool) -> str:
    batch = 2 if trained else 1
    return _lenet_body(_writer(trained, 28, 1, batch)).classified(trained=trained)


@net
def lenet() -> str:
    return _lenet(False)


@net
def lenet_train_test() -> str:
    return _lenet(True)


@net
def mnist_siamese() -> str:
    return _lenet_body(_writer(False, 28, 1)).ip("feat", 2).text


@net
def mnist_siamese_train_test() -> str:
    writer = Writer(pair_data=(2, 2, 28, 28), sim=(2,))
    writer.text += (
        'layer { name: "slice_pair" type: "Slice" bottom: "pair_data" top: "data" top: "data_p" '
        "slice_param { slice_dim: 1 slice_point: 1 } }\n"
    )
    writer.shared = True
    for writer.suffix in ("", "_p"):
        writer.blob = f"data{writer.suffix}"
        _lenet_body(writer).ip("feat", 2)
    margin = "contrastive_loss_param { margin: 1 }"
    return writer.layer("ContrastiveLoss", "loss", ["feat", "feat_p", "sim"], margin).text


@net
def mnist_autoencoder() -> str:
    writer = Writer(data=(2, 1, 28, 28))
    writer.layer("Flatten", "flatdata", ["data"])
    writer.blob = "data"
    for name, outputs in (
        ("encode1", 1000), ("encode2", 500), ("encode3", 250), ("encode4", 30),
        ("decode4", 250), ("decode3", 500), ("decode2", 1000), ("decode1", 784),
    ):  # fmt: skip
        writer.ip(name, outputs)
        if name not in ("encode4", "decode1"):
            writer.layer("Sigmoid", f"{name}neuron", [name])
    writer.layer(
        "SigmoidCrossEntropyLoss", "loss", ["decode1", "flatdata"], "loss_weight: 1",
        "cross_entropy_loss",
    )  # fmt: skip
    writer.layer("Sigmoid", "decode1neuron", ["decode1"])
    return writer.layer(
        "EuclideanLoss", "loss", ["decode1neuron", "flatdata"], "loss_weight: 0", "l2_error"
    ).text
