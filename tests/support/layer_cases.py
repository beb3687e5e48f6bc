"""For every layer type: small declarations and bottoms, from which the contract tests are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from google.protobuf import text_format
from torch import Tensor

from cortado.layers.base import TEST, TRAIN, Context, Layer
from cortado.layers.registry import find
from cortado.proto import caffe_pb2


@dataclass(frozen=True)
class LayerCase:
    """One declaration of a layer.

    ``bottoms`` are shapes. ``labels`` pairs the index of a bottom that holds labels, indices or
    flags with how many values these take; ``low`` is the least value of the other bottoms, 1 the
    largest.
    """

    type: str
    bottoms: tuple[tuple[int, ...], ...]
    text: str = ""
    tops: int = 1
    labels: tuple[tuple[int, int], ...] = ()
    phase: int = TRAIN
    low: float = -1.0
    #: How many of the tops carry gradients; all if None.
    graded: int | None = None

    def __str__(self) -> str:
        return f"{self.type}-{self.text.replace(' ', '')[:40]}" if self.text else self.type

    def message(self) -> caffe_pb2.LayerParameter:
        message = text_format.Parse(self.text, caffe_pb2.LayerParameter())
        message.name, message.type = "layer", self.type
        message.bottom.extend(f"bottom{index}" for index in range(len(self.bottoms)))
        message.top.extend(f"top{index}" for index in range(self.tops))
        return message

    def build(self, message: caffe_pb2.LayerParameter | None = None) -> Layer:
        """The layer, on the meta device."""
        cls = find(self.type)
        assert issubclass(cls, Layer)
        context = Context(self.bottoms, self.tops, self.phase)
        return cls.from_message(message or self.message(), context)

    def ready(self, dtype: torch.dtype = torch.float32) -> Layer:
        """The layer with memory, its parameters random."""
        layer = self.build()
        layer.materialize()
        layer.to(dtype)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.1)
        return layer

    def inputs(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Bottoms without equal values."""
        generator = torch.Generator().manual_seed(1)
        classes = dict(self.labels)
        found = []
        for index, shape in enumerate(self.bottoms):
            if index in classes:
                found.append(torch.randint(classes[index], shape, generator=generator).to(dtype))
                continue
            count = max(1, torch.Size(shape).numel())
            # Distinct, and none at a kink: odd multiples of a step over [low, 1].
            steps = torch.randperm(count, generator=generator).double() * 2 + 1
            values = self.low + steps * (1 - self.low) / (2 * count + 1)
            found.append(values.reshape(shape).to(dtype))
        return found

    def graded_inputs(self) -> list[Tensor]:
        """Double bottoms that ask for gradients, except labels."""
        skip = dict(self.labels)
        found = self.inputs(torch.float64)
        return [x if i in skip else x.requires_grad_() for i, x in enumerate(found)]


N4 = (2, 3, 5, 4)
N2 = (4, 3)
FILL = 'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 }'

CASES = [
    LayerCase("AbsVal", (N4,)),
    LayerCase("Accuracy", (N2, (4,)), labels=((1, 3),)),
    LayerCase("Accuracy", (N4, (2, 5, 4)), "accuracy_param { top_k: 2 ignore_label: 1 }", 2,
              labels=((1, 3),)),
    LayerCase("ArgMax", (N4,), "argmax_param { top_k: 2 out_max_val: true }"),
    LayerCase("ArgMax", (N4,), "argmax_param { axis: 1 }"),
    LayerCase("BNLL", (N4,)),
    LayerCase("BatchNorm", (N4,)),
    LayerCase("BatchNorm", (N4,), phase=TEST),
    LayerCase("BatchReindex", (N2, (5,)), labels=((1, 4),)),
    LayerCase("Bias", (N4,)),
    LayerCase("Bias", (N4, (3,))),
    LayerCase("Clip", (N4,), "clip_param { min: -0.5 max: 0.6 }"),
    LayerCase("Concat", (N4, (2, 2, 5, 4))),
    LayerCase("ContrastiveLoss", (N2, N2, (4,)), "contrastive_loss_param { margin: 3 }",
              labels=((2, 2),)),
    LayerCase("Convolution", (N4,),
              f"convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 stride: 2 {FILL} }}"),
    LayerCase("Convolution", ((2, 4, 5, 4),),
              "convolution_param { num_output: 2 kernel_h: 3 kernel_w: 2 group: 2 dilation: 2 }"),
    LayerCase("Convolution", ((2, 3, 2, 3, 2, 3),),
              "convolution_param { num_output: 2 kernel_size: 2 pad: 1 }"),
    LayerCase("Convolution", ((2, 2, 3, 4),),
              "convolution_param { num_output: 2 kernel_size: 2 axis: 2 }"),
    LayerCase("Crop", (N4, (2, 3, 3, 2)), "crop_param { offset: 1 }"),
    LayerCase("Deconvolution", (N4,),
              "convolution_param { num_output: 4 kernel_size: 3 stride: 2 }"),
    LayerCase("Dropout", (N4,), phase=TEST),
    LayerCase("ELU", (N4,), "elu_param { alpha: 0.7 }"),
    LayerCase("Eltwise", (N4, N4, N4), "eltwise_param { coeff: 1 coeff: -2 coeff: 0.5 }"),
    LayerCase("Eltwise", (N4, N4), "eltwise_param { operation: PROD }"),
    LayerCase("Embed", (N2,), f"embed_param {{ num_output: 2 input_dim: 6 {FILL} }}",
              labels=((0, 6),)),
    LayerCase("EuclideanLoss", (N4, N4)),
    LayerCase("Exp", (N4,), "exp_param { base: 2 scale: 0.5 shift: 1 }"),
    LayerCase("Filter", (N4, (2,)), labels=((1, 2),)),
    LayerCase("Flatten", (N4,)),
    LayerCase("HDF5Output", (N4, (2,)), 'hdf5_output_param { file_name: "out.h5" }', 0),
    LayerCase("HingeLoss", (N2, (4,)), "hinge_loss_param { norm: L2 }", labels=((1, 3),)),
    LayerCase("Im2col", (N4,), "convolution_param { kernel_size: 3 pad: 1 }"),
    LayerCase("InfogainLoss", (N4, (2, 5, 4), (3, 3)), labels=((1, 3), (2, 3))),
    LayerCase("InnerProduct", (N4,), f"inner_product_param {{ num_output: 2 {FILL} }}"),
    LayerCase("InnerProduct", (N4,),
              "inner_product_param { num_output: 2 axis: 2 transpose: true bias_term: false }"),
    LayerCase("LRN", ((2, 7, 3, 2),), "lrn_param { local_size: 3 alpha: 0.7 }"),
    LayerCase("LRN", (N4,), "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }"),
    LayerCase("LSTM", ((3, 2, 4), (3, 2)), f"recurrent_param {{ num_output: 3 {FILL} }}",
              labels=((1, 2),)),
    LayerCase("LSTMUnit", ((1, 2, 3), (1, 2, 12), (1, 2)), tops=2, labels=((2, 2),)),
    LayerCase("Log", (N4,), "log_param { base: 10 scale: 2 shift: 1 }", low=0.1),
    LayerCase("MVN", (N4,)),
    LayerCase("MVN", (N4,), "mvn_param { across_channels: true normalize_variance: false }"),
    LayerCase("MultinomialLogisticLoss", (N2, (4,)), labels=((1, 3),), low=0.1),
    LayerCase("PReLU", (N4,)),
    LayerCase("Parameter", (), "parameter_param { shape { dim: 2 dim: 3 } }"),
    LayerCase("Pooling", (N4,), "pooling_param { kernel_size: 3 stride: 2 }"),
    LayerCase("Pooling", (N4,), "pooling_param { kernel_size: 3 stride: 2 pad: 2 }", 2, graded=1),
    LayerCase("Pooling", (N4,), "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    LayerCase("Pooling", (N4,), "pooling_param { pool: AVE global_pooling: true }"),
    LayerCase("Pooling", (N4,), "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
              phase=TEST, low=0.1),
    LayerCase("Power", (N4,), "power_param { power: 2 scale: 0.5 shift: 1 }", low=0.1),
    LayerCase("Python", (N4,),
              'python_param { module: "golden_pylayers" layer: "AffineByParamStr" '
              'param_str: "{\\"a\\": 2, \\"b\\": 1}" }'),
    LayerCase("RNN", ((3, 2, 4), (3, 2)), f"recurrent_param {{ num_output: 3 {FILL} }}",
              labels=((1, 2),)),
    LayerCase("ReLU", (N4,), "relu_param { negative_slope: 0.1 }"),
    LayerCase("Reduction", (N4,), "reduction_param { operation: SUMSQ axis: 1 coeff: 0.5 }"),
    LayerCase("Reshape", (N4,), "reshape_param { shape { dim: 0 dim: -1 dim: 4 } }"),
    LayerCase("SPP", ((2, 3, 8, 7),), "spp_param { pyramid_height: 2 }"),
    LayerCase("Scale", (N4,), "scale_param { bias_term: true }"),
    LayerCase("Scale", (N4, (3,))),
    LayerCase("Sigmoid", (N4,)),
    LayerCase("SigmoidCrossEntropyLoss", (N4, N4), "loss_param { ignore_label: 1 }",
              labels=((1, 2),)),
    LayerCase("Silence", (N4, N2), tops=0),
    LayerCase("Slice", ((2, 4, 3),), "slice_param { slice_point: 1 }", 2),
    LayerCase("Softmax", (N4,)),
    LayerCase("SoftmaxWithLoss", (N2, (4,)), labels=((1, 3),)),
    LayerCase("SoftmaxWithLoss", (N4, (2, 1, 5, 4)), "loss_param { ignore_label: 1 }", 2,
              labels=((1, 3),), graded=1),
    LayerCase("Split", (N4,), tops=2),
    LayerCase("Swish", (N4,), "swish_param { beta: 1.5 }"),
    LayerCase("TanH", (N4,)),
    LayerCase("Threshold", (N4,), "threshold_param { threshold: 0.2 }"),
    LayerCase("Tile", (N4,), "tile_param { tiles: 2 }"),
]  # fmt: skip
