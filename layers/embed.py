"""Embed: one learned vector for each of a set of indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import Context, LabelRange, Layer, Shape
from .fillers import Filler
from .registry import register


@register("Embed")
class Embed(Layer):
    """y = W[x] + b for whole numbers x from 0 to ``input_dim`` - 1, held as floats.

    bottom ``(...)`` -> top ``(..., num_output)``. Blobs: ``weight`` ``(input_dim, num_output)``;
    ``bias`` ``(num_output)`` unless ``bias_term`` is false. Indices get no gradient.

    Torch: ``F.embedding`` with a bias; no ``padding_idx``.
    """

    message_field = "embed_param"

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        input_dim: int,
        num_output: int,
        *,
        bias_term: bool = True,
        weight_filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        self.bias_term = bias_term
        self.add_blob("weight", (input_dim, num_output), weight_filler)
        if bias_term:
            self.add_blob("bias", (num_output,), bias_filler)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Embed:
        param = message.embed_param
        for name in ("num_output", "input_dim"):
            if getattr(param, name) == 0:
                raise LayerError(f"{name} must be given and positive", f"embed_param.{name}")
        return cls(
            param.input_dim,
            param.num_output,
            bias_term=param.bias_term,
            weight_filler=fillers.from_message(param.weight_filler, "embed_param.weight_filler"),
            bias_filler=fillers.from_message(param.bias_filler, "embed_param.bias_filler"),
        )

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        return LabelRange(0, self.weight.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        y = F.embedding(x.long(), self.weight)
        return y + self.bias if self.bias_term else y

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [(*bottoms[0], self.weight.shape[1])]
