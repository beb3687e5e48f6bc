"""Declarations of the layer types that Caffe does not have."""

from cortado.layers.base import TEST

from .layer_case import FILL, N4, LayerCase

SEQUENCE = (2, 4, 6)

MODERN_CASES = [
    LayerCase("AdaptivePooling", (N4,), "adaptive_pooling_param { output_size: 3 output_size: 2 }"),
    LayerCase("AdaptivePooling", ((2, 3, 7),),
              "adaptive_pooling_param { pool: MAX output_size: 3 }"),
    LayerCase("ClassToken", (SEQUENCE,)),
    LayerCase("DropPath", (N4,), phase=TEST),
    LayerCase("GELU", (N4,)),
    LayerCase("GELU", (N4,), "gelu_param { approximate: TANH }"),
    LayerCase("HardSigmoid", (N4,)),
    LayerCase("HardSwish", (N4,)),
    LayerCase("LayerNorm", (N4,)),
    LayerCase("LayerNorm", (N4,), "layer_norm_param { axis: 1 num_axes: 1 bias_term: false }"),
    LayerCase("Mish", (N4,)),
    LayerCase("MultiHeadAttention", (SEQUENCE,), "multi_head_attention_param { num_heads: 2 }"),
    LayerCase("MultiHeadAttention", (SEQUENCE, (2, 5, 6), (2, 5)),
              f"multi_head_attention_param {{ num_heads: 3 padding_mask: true {FILL} }}",
              labels=((2, 2),)),
    LayerCase("MultiHeadAttention", (SEQUENCE, SEQUENCE, SEQUENCE),
              "multi_head_attention_param { num_heads: 2 causal: true bias_term: false }"),
    LayerCase("Permute", (N4,), "permute_param { order: 0 order: -1 }"),
    LayerCase("PositionalEmbedding", (SEQUENCE,)),
    LayerCase("PositionalEmbedding", ((2, 4, 5),),
              "positional_embedding_param { kind: SINUSOIDAL }"),
    LayerCase("RMSNorm", (N4,), "rms_norm_param { axis: 1 }"),
    LayerCase("ReLU6", (N4,)),
    LayerCase("SELU", (N4,)),
    LayerCase("SiLU", (N4,)),
    LayerCase("Softplus", (N4,), "softplus_param { beta: 2 }"),
    LayerCase("Squeeze", ((2, 1, 3, 1),), "squeeze_param { axis: 1 axis: -1 }"),
    LayerCase("Transpose", (N4,), "transpose_param { axis1: 1 }"),
    LayerCase("Unsqueeze", (N4,), "unsqueeze_param { axis: 2 }"),
]  # fmt: skip
