"""All declarations, and more of which the tops have other shapes or are more in number."""

from .layer_case import N2, N4, LayerCase
from .layer_cases import CASES

STATE = (1, 2, 3)
EXPOSED = "recurrent_param { num_output: 3 expose_hidden: true }"

SHAPE_CASES = [
    *CASES,
    LayerCase("AdaptivePooling", ((2, 3, 4, 5, 6),), "adaptive_pooling_param { output_size: 2 }"),
    LayerCase("ArgMax", ((2, 3, 4),)),
    LayerCase("ArgMax", ((3,),)),
    LayerCase("ArgMax", (N4,), "argmax_param { axis: -1 top_k: 3 out_max_val: true }"),
    LayerCase("Bias", (N4, (2, 3)), "bias_param { axis: 0 }"),
    LayerCase("CosineSimilarity", (N4, N4), "cosine_similarity_param { axis: -1 }"),
    LayerCase("Crop", (N4, (2, 2, 3, 3)), "crop_param { axis: 1 offset: [1, 2, 0] }"),
    LayerCase("DropPath", (N4,)),
    LayerCase("EuclideanLoss", ((), ())),
    LayerCase("Filter", (N4, (2, 3), (2, 1)), tops=2, labels=((2, 2),)),
    LayerCase("Flatten", (N4,), "flatten_param { axis: 1 end_axis: 2 }"),
    LayerCase("Gather", (N4, ()), "gather_param { axis: -1 }", labels=((1, 4),)),
    LayerCase("GroupNorm", ((2, 4),), "group_norm_param { num_groups: 4 }"),
    LayerCase("Im2col", ((2, 3, 7, 6, 5),), "convolution_param { axis: 2 kernel_size: 2 }"),
    LayerCase("Im2col", ((2, 3, 9),), "convolution_param { kernel_size: 3 stride: 2 dilation: 2 }"),
    LayerCase("InfogainLoss", (N2, (4,), (3, 3)), tops=2, labels=((1, 3), (2, 3))),
    LayerCase("InfogainLoss", ((4, 5), (4,)),
              'infogain_loss_param { source: "infogain_H5.binaryproto" }', labels=((1, 5),)),
    LayerCase("Interpolation", (N4,), "interpolation_param { factor: 1.7 mode: BICUBIC }"),
    LayerCase("LSTM", ((3, 2), (3, 2)), "recurrent_param { num_output: 3 }", labels=((1, 2),)),
    LayerCase("LSTM", ((3, 2, 4), (3, 2), (2, 5), STATE, STATE), EXPOSED, 3, labels=((1, 2),)),
    LayerCase("MVN", ((2, 3),)),
    LayerCase("MatMul", ((2, 1, 3, 4), (5, 4, 2))),
    LayerCase("MatMul", ((4, 3), (2, 4)), "matmul_param { transpose_a: true transpose_b: true }"),
    LayerCase("Parameter", (), "parameter_param { shape {} }"),
    LayerCase("Permute", (N4,)),
    LayerCase("RNN", ((3, 2, 4), (3, 2), (2,), STATE), EXPOSED, 2, labels=((1, 2),)),
    LayerCase("Reduction", (N4,)),
    LayerCase("Reduction", ((),), "reduction_param { operation: MEAN }"),
    LayerCase("Reshape", (N4,), "reshape_param { shape { dim: 0 dim: 5 } axis: 1 num_axes: 2 }"),
    LayerCase("Reshape", (N4,), "reshape_param { shape { dim: -1 } axis: -1 }"),
    LayerCase("SPP", ((2, 3, 8, 7),), "spp_param { pyramid_height: 1 }"),
    LayerCase("SPP", ((2, 3, 8, 7),), "spp_param { pyramid_height: 3 pool: AVE }"),
    LayerCase("Scale", ((), ())),
    LayerCase("Scale", (N4, (5, 4)), "scale_param { axis: 2 bias_term: true }"),
    LayerCase("SigmoidCrossEntropyLoss", ((2, 3, 1), (2, 3))),
    LayerCase("Slice", ((2, 6, 3),), "slice_param { axis: -1 }", 3),
    LayerCase("Squeeze", ((2, 1, 3, 1),)),
    LayerCase("Unsqueeze", (N4,), "unsqueeze_param { axis: -1 }"),
]  # fmt: skip
