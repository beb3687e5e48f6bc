"""The zoo's nets written out layer by layer: what their short forms must expand to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf import text_format

from cortado.proto.caffe_pb2 import NetParameter
from support.public_nets import INCEPTIONS

NETS: dict[str, Callable[[], NetParameter]] = {}

BOTH = "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"
TEST = "include { phase: TEST }"
MSRA = 'weight_filler { type: "msra" }'


def net(function: Callable[[], Writer]) -> Callable[[], NetParameter]:
    def build() -> NetParameter:
        return text_format.Parse(function().text, NetParameter())

    NETS[function.__name__] = build
    return build


def gaussian(std: float) -> str:
    return f'weight_filler {{ type: "gaussian" std: {std} }}'


XAVIER = 'weight_filler { type: "xavier" }'


def constant(value: float) -> str:
    return f'bias_filler {{ type: "constant" value: {value} }}'


class Writer:
    """Collects layers as text; ``blob`` is the top of the last one.

    Without a ``transform`` images come with their channels as torchvision's nets have them.
    """

    def __init__(self, name: str, crop: int, batch: int, transform: str) -> None:
        self.text = f'name: "{name}"\n'
        images = "data" if transform else "bgr"
        for phase, mirror, source, size in (
            ("TRAIN", "true", "train", batch),
            ("TEST", "false", "val", 50),
        ):
            self.text += (
                f'layer {{ name: "data" type: "Data" top: "{images}" top: "label" '
                f"include {{ phase: {phase} }} "
                f"transform_param {{ mirror: {mirror} crop_size: {crop} {transform} }} "
                f'data_param {{ source: "examples/imagenet/ilsvrc12_{source}_lmdb" '
                f"batch_size: {size} backend: LMDB }} }}\n"
            )
        self.blob = "data"
        if not transform:
            self._normalised_channels(crop)

    def _normalised_channels(self, crop: int) -> None:
        """Red, green and blue as torchvision wants them, or an input that has them so."""
        learning, deployed = 'include { not_stage: "deploy" }', 'include { stage: "deploy" }'
        tops = 'top: "blue" top: "green" top: "red"'
        self.text += f'layer {{ name: "channels" type: "Slice" bottom: "bgr" {tops} {learning} }}\n'
        for channel, mean, deviation in (
            ("red", 0.485, 0.229),
            ("green", 0.456, 0.224),
            ("blue", 0.406, 0.225),
        ):
            power = f"scale: {1 / (255 * deviation)} shift: {-mean / deviation}"
            more = f"{learning} power_param {{ {power} }}"
            self.layer("Power", channel, more, bottoms=[channel])
        self.layer("Concat", "rgb", learning, top="data", bottoms=["red", "green", "blue"])
        shape = f"input_param {{ shape {{ dim: 1 dim: 3 dim: {crop} dim: {crop} }} }}"
        self.text += f'layer {{ name: "data" type: "Input" top: "data" {deployed} {shape} }}\n'

    def layer(
        self, kind: str, name: str, more: str = "", top: str = "", bottoms: Sequence[str] = ()
    ) -> str:
        wires = "".join(f' bottom: "{blob}"' for blob in bottoms or [self.blob])
        self.blob = top or name
        self.text += f'layer {{ name: "{name}" type: "{kind}"{wires} top: "{self.blob}" {more} }}\n'
        return self.blob

    def place(self, kind: str, name: str, more: str = "") -> None:
        """A layer that works in place."""
        self.layer(kind, name, more, top=self.blob)

    def conv(self, name: str, outputs: int, kernel: int, more: str, param: str = "") -> str:
        message = f"num_output: {outputs} kernel_size: {kernel} {more}"
        return self.layer("Convolution", name, f"{param} convolution_param {{ {message} }}")

    def fc(self, name: str, outputs: int, more: str, param: str = BOTH) -> str:
        message = f"inner_product_param {{ num_output: {outputs} {more} }}"
        return self.layer("InnerProduct", name, f"{param} {message}")

    def pool(self, name: str, method: str, more: str) -> str:
        return self.layer("Pooling", name, f"pooling_param {{ pool: {method} {more} }}")

    def norm(self, name: str) -> None:
        self.layer("LRN", name, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def relu_drop(self, suffix: str | int, ratio: float, prefix: str = "") -> None:
        self.place("ReLU", f"{prefix}relu{suffix}")
        self.place(
            "Dropout", f"{prefix}drop{suffix}", f"dropout_param {{ dropout_ratio: {ratio} }}"
        )

    def classified(self) -> Writer:
        ends = [self.blob, "label"]
        self.layer("Accuracy", "accuracy", TEST, bottoms=ends)
        top5 = f"{TEST} accuracy_param {{ top_k: 5 }}"
        self.layer("Accuracy", "accuracy_top5", top5, bottoms=ends)
        self.layer("SoftmaxWithLoss", "loss", bottoms=ends)
        return self


def means(*values: float) -> str:
    return " ".join(f"mean_value: {value}" for value in values)


@net
def bvlc_alexnet() -> Writer:
    mean = 'mean_file: "data/ilsvrc12/imagenet_mean.binaryproto"'
    w = Writer("AlexNet", 227, 256, mean)
    for i, outputs, kernel, more, bias in (
        (1, 96, 11, "stride: 4", 0),
        (2, 256, 5, "pad: 2 group: 2", 0.1),
        (3, 384, 3, "pad: 1", 0),
        (4, 384, 3, "pad: 1 group: 2", 0.1),
        (5, 256, 3, "pad: 1 group: 2", 0.1),
    ):
        w.conv(f"conv{i}", outputs, kernel, f"{more} {gaussian(0.01)} {constant(bias)}", BOTH)
        w.place("ReLU", f"relu{i}")
        if i < 3:
            w.norm(f"norm{i}")
        if i in (1, 2, 5):
            w.pool(f"pool{i}", "MAX", "kernel_size: 3 stride: 2")
    for i in (6, 7):
        w.fc(f"fc{i}", 4096, f"{gaussian(0.005)} {constant(0.1)}")
        w.relu_drop(i, 0.5)
    w.fc("fc8", 1000, f"{gaussian(0.01)} {constant(0)}")
    return w.classified()


@net
def vgg19() -> Writer:
    w = Writer("vgg19", 224, 64, transform="")
    for stage, (count, outputs) in enumerate(
        ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)), start=1
    ):
        for i in range(1, count + 1):
            more = f"pad: 1 {gaussian(0.01)} {constant(0)}"
            w.conv(f"conv{stage}_{i}", outputs, 3, more, BOTH)
            w.place("ReLU", f"relu{stage}_{i}")
        w.pool(f"pool{stage}", "MAX", "kernel_size: 2 stride: 2")
    for i in (6, 7):
        w.fc(f"fc{i}", 4096, f"{gaussian(0.01)} {constant(0)}")
        w.relu_drop(i, 0.5)
    w.fc("fc8", 1000, f"{gaussian(0.01)} {constant(0)}")
    return w.classified()


def _google_conv(
    w: Writer, prefix: str, part: str, outputs: int, kernel: int = 1, more: str = "", relu: str = ""
) -> str:
    w.conv(f"{prefix}/{part}", outputs, kernel, f"{more} {XAVIER} {constant(0.2)}", BOTH)
    w.place("ReLU", f"{prefix}/{relu or f'relu_{part}'}")
    return w.blob


def _google_head(w: Writer, i: int, loss: str, weight: float) -> None:
    scores = w.fc(f"loss{i}/classifier", 1000, f"{XAVIER} {constant(0)}")
    ends = [scores, "label"]
    w.layer(
        "SoftmaxWithLoss", f"loss{i}/{loss}", f"loss_weight: {weight}", f"loss{i}/loss{i}", ends
    )
    w.layer("Accuracy", f"loss{i}/top-1", f"{TEST} accuracy_param {{ }}", bottoms=ends)
    w.layer("Accuracy", f"loss{i}/top-5", f"{TEST} accuracy_param {{ top_k: 5 }}", bottoms=ends)


@net
def bvlc_googlenet() -> Writer:
    w = Writer("GoogleNet", 224, 32, means(104, 117, 123))
    _google_conv(w, "conv1", "7x7_s2", 64, 7, "pad: 3 stride: 2", "relu_7x7")
    w.pool("pool1/3x3_s2", "MAX", "kernel_size: 3 stride: 2")
    w.norm("pool1/norm1")
    _google_conv(w, "conv2", "3x3_reduce", 64)
    _google_conv(w, "conv2", "3x3", 192, 3, "pad: 1")
    w.norm("conv2/norm2")
    for unit, (one, reduce3, three, reduce5, five, project) in INCEPTIONS.items():
        if unit[1] == "a":
            w.pool(f"pool{int(unit[0]) - 1}/3x3_s2", "MAX", "kernel_size: 3 stride: 2")
        source, at = w.blob, f"inception_{unit}"
        ends = [_google_conv(w, at, "1x1", one)]
        w.blob = source
        _google_conv(w, at, "3x3_reduce", reduce3)
        ends.append(_google_conv(w, at, "3x3", three, 3, "pad: 1"))
        w.blob = source
        _google_conv(w, at, "5x5_reduce", reduce5)
        ends.append(_google_conv(w, at, "5x5", five, 5, "pad: 2"))
        w.blob = source
        w.pool(f"{at}/pool", "MAX", "kernel_size: 3 stride: 1 pad: 1")
        ends.append(_google_conv(w, at, "pool_proj", project))
        trunk = w.layer("Concat", f"{at}/output", bottoms=ends)
        if unit in ("4a", "4d"):
            i = 1 if unit == "4a" else 2
            w.pool(f"loss{i}/ave_pool", "AVE", "kernel_size: 5 stride: 3")
            _google_conv(w, f"loss{i}", "conv", 128)
            w.fc(f"loss{i}/fc", 1024, f"{XAVIER} {constant(0.2)}")
            w.relu_drop("_fc", 0.7, f"loss{i}/")
            _google_head(w, i, "loss", 0.3)
            w.blob = trunk
    w.pool("pool5/7x7_s1", "AVE", "kernel_size: 7 stride: 1")
    w.place("Dropout", "pool5/drop_7x7_s1", "dropout_param { dropout_ratio: 0.4 }")
    _google_head(w, 3, "loss3", 1)
    return w


def _res_conv(w: Writer, at: str, outputs: int, kernel: int, stride: int, pad: int) -> None:
    sizes = f"stride: {stride} pad: {pad} bias_term: false {MSRA}"
    w.conv(f"res{at}", outputs, kernel, sizes)
    w.place("BatchNorm", f"bn{at}")
    w.place("Scale", f"scale{at}", "scale_param { bias_term: true }")


def _resnet(depth: int, letters: Sequence[Sequence[str]], bias: str) -> Writer:
    w = Writer(f"ResNet-{depth}", 224, 32, means(104, 117, 123))
    w.conv("conv1", 64, 7, f"stride: 2 pad: 3 bias_term: {bias} {MSRA}")
    w.place("BatchNorm", "bn_conv1")
    w.place("Scale", "scale_conv1", "scale_param { bias_term: true }")
    w.place("ReLU", "conv1_relu")
    w.pool("pool1", "MAX", "kernel_size: 3 stride: 2")
    for stage, units in enumerate(letters, start=2):
        width = 64 * 2 ** (stage - 2)
        for unit in units:
            at, source = f"{stage}{unit}", w.blob
            stride = 2 if unit == "a" and stage > 2 else 1
            skip = source
            if unit == "a":
                _res_conv(w, f"{at}_branch1", 4 * width, 1, stride, 0)
                skip, w.blob = w.blob, source
            _res_conv(w, f"{at}_branch2a", width, 1, stride, 0)
            w.place("ReLU", f"res{at}_branch2a_relu")
            _res_conv(w, f"{at}_branch2b", width, 3, 1, 1)
            w.place("ReLU", f"res{at}_branch2b_relu")
            _res_conv(w, f"{at}_branch2c", 4 * width, 1, 1, 0)
            w.layer("Eltwise", f"res{at}", bottoms=[skip, w.blob])
            w.place("ReLU", f"res{at}_relu")
    w.pool("pool5", "AVE", "kernel_size: 7 stride: 1")
    w.fc("fc1000", 1000, MSRA, "")
    return w.classified()


@net
def resnet50_caffe() -> Writer:
    return _resnet(50, ["abc", "abcd", "abcdef", "abc"], "true")


@net
def resnet152_caffe() -> Writer:
    numbered = [["a", *(f"b{i}" for i in range(1, count))] for count in (8, 36)]
    return _resnet(152, ["abc", *numbered, "abc"], "false")


@net
def densenet121_caffe() -> Writer:
    w = Writer("DENSENET_121", 224, 32, f"scale: 0.017 {means(103.94, 116.78, 123.68)}")

    def bn_relu(at: str) -> None:
        w.layer("BatchNorm", f"conv{at}/bn", "batch_norm_param { eps: 1e-5 }")
        w.place("Scale", f"conv{at}/scale", "scale_param { bias_term: true }")
        w.place("ReLU", f"relu{at}")

    def conv(at: str, outputs: int, kernel: int = 1, more: str = "") -> None:
        w.conv(f"conv{at}", outputs, kernel, f"bias_term: false {more} {MSRA}")

    conv("1", 64, 7, "pad: 3 stride: 2")
    bn_relu("1")
    w.pool("pool1", "MAX", "kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR")
    channels = 64
    for stage, units in enumerate((6, 12, 24, 16), start=2):
        for i in range(1, units + 1):
            source, at = w.blob, f"{stage}_{i}"
            bn_relu(f"{at}/x1")
            conv(f"{at}/x1", 128)
            bn_relu(f"{at}/x2")
            conv(f"{at}/x2", 32, 3, "pad: 1")
            w.layer("Concat", f"concat_{at}", bottoms=[source, w.blob])
        bn_relu(f"{stage}_blk")
        channels = (channels + 32 * units) // 2
        if stage < 5:
            conv(f"{stage}_blk", channels)
            w.pool(f"pool{stage}", "AVE", "kernel_size: 2 stride: 2")
    w.pool("pool5", "AVE", "global_pooling: true")
    w.conv("fc6", 1000, 1, MSRA)
    return w.classified()


@net
def mobilenet_v2_caffe() -> Writer:
    w = Writer("MOBILENET_V2", 224, 64, f"scale: 0.017 {means(103.94, 116.78, 123.68)}")
    weight = "param { lr_mult: 1 decay_mult: 1 }"

    def conv(at: str, outputs: int, kernel: int = 1, more: str = "", relu: bool = True) -> None:
        w.conv(f"conv{at}", outputs, kernel, f"bias_term: false {more} {MSRA}", weight)
        fixed = "param { lr_mult: 0 decay_mult: 0 } " * 3
        w.layer("BatchNorm", f"conv{at}/bn", f"{fixed} batch_norm_param {{ eps: 1e-5 }}")
        free = "param { lr_mult: 1 decay_mult: 0 } " * 2
        w.place("Scale", f"conv{at}/scale", f"{free} scale_param {{ bias_term: true }}")
        if relu:
            w.place("ReLU", f"relu{at}")

    conv("1", 32, 3, "pad: 1 stride: 2")
    units = ["2_1", "2_2", "3_1", "3_2", *(f"4_{i}" for i in range(1, 8))]
    units += [*(f"5_{i}" for i in range(1, 4)), *(f"6_{i}" for i in range(1, 4))]
    outputs = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    strides = {"2_1": 1, "2_2": 2, "3_2": 2, "4_3": 1, "4_7": 2, "5_3": 2, "6_3": 1}
    before = 32
    for at, after in zip(units, outputs, strict=True):
        source = w.blob
        width = before if at == "2_1" else 6 * before
        conv(f"{at}/expand", width)
        stride = f"stride: {strides[at]}" if at in strides else ""
        conv(f"{at}/dwise", width, 3, f"pad: 1 group: {width} {stride}")
        conv(f"{at}/linear", after, relu=False)
        if at not in strides:
            w.layer("Eltwise", f"block_{at}", bottoms=[source, w.blob])
        before = after
    conv("6_4", 1280)
    w.pool("pool6", "AVE", "global_pooling: true")
    w.conv("fc7", 1000, 1, f"{MSRA} {constant(0)}", BOTH)
    return w.classified()
