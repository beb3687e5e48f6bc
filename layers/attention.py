"""MultiHeadAttention: what each item of a sequence takes from the items of another."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .arguments import arguments
from .base import TRAIN, Context, Layer, Shape, between
from .fillers import Filler, constant, named
from .linear import linear
from .registry import register


@register("MultiHeadAttention")
class MultiHeadAttention(Layer):
    """softmax(q k^T / sqrt(d)) v in each of ``num_heads`` heads, between linear maps.

    bottoms: queries ``(N, T, D)``, keys ``(N, S, D)``, values ``(N, S, D)`` -> top ``(N, T, D)``.
    With one of them it is also the keys and values (self-attention), with two the second is both.
    With ``padding_mask: true`` one more bottom, the last, ``(N, S)``, is 0 for keys to which nobody
    attends; each sequence must have another. ``causal``: item t attends to items up to t only.
    ``dropout_ratio`` (0) applies to the weights of attention in TRAIN. Blobs, as in torch:
    ``in_proj_weight`` ``(3 D, D)``, ``in_proj_bias`` ``(3 D)``, ``out_proj_weight`` ``(D, D)``,
    ``out_proj_bias`` ``(D)``; no biases with ``bias_term: false``. Weights are drawn as by xavier
    unless ``weight_filler`` says otherwise; biases start at 0. The fused kernels of
    scaled_dot_product_attention do the work. Vaswani et al. 2017.

    Torch: ``nn.MultiheadAttention`` with ``batch_first``; a mask says there which keys do not
    count.
    """

    message_field = "multi_head_attention_param"
    bottoms = between(1, 4)
    keeps_shape = True

    in_proj_weight: Tensor
    in_proj_bias: Tensor
    out_proj_weight: Tensor
    out_proj_bias: Tensor

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        causal: bool = False,
        padding_mask: bool = False,
        dropout_ratio: float = 0.0,
        bias_term: bool = True,
        weight_filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise LayerError(
                f"num_heads must be given and divide the {width} values of an item, "
                f"got {num_heads}",
                f"{self.message_field}.num_heads",
            )
        if not 0 <= dropout_ratio < 1:
            raise LayerError(
                f"dropout_ratio must be at least 0 and below 1, got {dropout_ratio:g}",
                f"{self.message_field}.dropout_ratio",
            )
        self.width = width
        self.num_heads = num_heads
        self.causal = causal
        self.padding_mask = padding_mask
        self.dropout_ratio = dropout_ratio
        self.bias_term = bias_term
        for name, rows in (("in_proj", 3 * width), ("out_proj", width)):
            self.add_blob(f"{name}_weight", (rows, width), weight_filler or named("xavier"))
            if bias_term:
                self.add_blob(f"{name}_bias", (rows,), bias_filler or constant(0.0))

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        given = arguments(message.multi_head_attention_param, cls.message_field)
        if context.phase != TRAIN:
            given["dropout_ratio"] = 0.0
        shape = context.shapes[0]
        if len(shape) != 3:
            raise LayerError(f"the bottom must have the axes (N, T, D), got {shape}", "bottom.0")
        if not 1 <= len(context.shapes) - given["padding_mask"] <= 3:
            raise LayerError("there must be 1 to 3 bottoms besides the padding mask", "bottom")
        return cls(shape[2], given.pop("num_heads", 0), **given)

    def forward(self, *bottoms: Tensor) -> Tensor:
        sequences, mask = bottoms, None
        if self.padding_mask:
            *sequences, mask = bottoms  # type: ignore[assignment]
        self.check_shapes(*[x.shape for x in bottoms])
        query, key, value = self._projected(sequences)
        allowed = None if mask is None else (mask != 0)[:, None, None, :]
        causal = self.causal
        if allowed is not None and causal:  # the kernel takes one or the other
            steps = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
            allowed, causal = allowed & steps.tril(), False
        y = F.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, dropout_p=self.dropout_ratio, is_causal=causal
        )
        y = y.transpose(1, 2).flatten(2)
        return linear(y, self.out_proj_weight, self.out_proj_bias if self.bias_term else None)

    def check_shapes(self, *bottoms: Shape) -> None:
        sequences = bottoms[: len(bottoms) - self.padding_mask]
        batch = sequences[0][0]
        for index, shape in enumerate(sequences):
            if len(shape) != 3 or shape[0] != batch or shape[2] != self.width:
                raise LayerError(
                    f"the bottom must have shape ({batch}, items, {self.width}), "
                    f"got {tuple(shape)}",
                    f"bottom.{index}",
                )
        if len(sequences) == 3 and sequences[1] != sequences[2]:
            raise LayerError("keys and values must have one shape", "bottom.2")
        if self.padding_mask and bottoms[-1] != sequences[-1][:2]:
            raise LayerError(
                f"the padding mask must have shape {tuple(sequences[-1][:2])}, one number for "
                f"each key, got {tuple(bottoms[-1])}",
                "bottom",
            )

    def _projected(self, sequences: Sequence[Tensor]) -> list[Tensor]:
        """Queries, keys and values, each ``(N, heads, items, D / heads)``."""
        bias = self.in_proj_bias if self.bias_term else None
        if len(sequences) == 1:
            parts = linear(sequences[0], self.in_proj_weight, bias).chunk(3, -1)
        else:
            weights = self.in_proj_weight.chunk(3)
            biases = (None, None, None) if bias is None else bias.chunk(3)
            inputs = (*sequences, sequences[-1])[:3]
            parts = tuple(linear(*each) for each in zip(inputs, weights, biases, strict=True))
        return [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts]

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        sequences = bottoms[: len(bottoms) - self.padding_mask]
        queries, keys = prod(bottoms[0][:2]), prod(sequences[-1][:2])
        maps = 2 * (queries + keys) * self.width**2
        return maps + 2 * queries * sequences[-1][1] * self.width
