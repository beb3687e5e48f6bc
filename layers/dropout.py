"""Dropout: random zeros while training."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .activations import Elementwise
from .base import TRAIN, Context
from .registry import register


@register("Dropout")
class Dropout(Elementwise):
    """TRAIN: each element becomes 0 with chance ``dropout_ratio``, else x / (1 - dropout_ratio).

    ``dropout_ratio`` is 0.5 by default. In TEST the top is the bottom. Srivastava et al. 2014,
    scaled while training as in Caffe.

    Torch: ``F.dropout``, the same; the ratio has the same meaning.
    """

    message_field = "dropout_param"

    def __init__(self, dropout_ratio: float = 0.5, active: bool = True) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.active = active

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Dropout:
        ratio = message.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            raise LayerError(
                f"dropout_ratio must be at least 0 and below 1, got {ratio:g}",
                "dropout_param.dropout_ratio",
            )
        return cls(ratio, context.phase == TRAIN)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout_ratio, self.active)
