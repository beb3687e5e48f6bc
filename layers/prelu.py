"""PReLU: a ReLU that learns its negative slope."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .activations import Elementwise
from .base import Context
from .fillers import Filler, constant
from .registry import register


@register("PReLU")
class PReLU(Elementwise):
    """y = max(x, 0) + weight * min(x, 0), one weight a channel (axis 1), or one for all.

    bottom and top have 2 to 4 axes. Blob: ``weight`` ``(C)``, or ``()`` with ``channel_shared``; it
    starts at 0.25 unless ``filler`` says otherwise. He et al. 2015.

    Torch: ``F.prelu``, the same.
    """

    message_field = "prelu_param"

    weight: Tensor

    def __init__(
        self, channels: int, *, channel_shared: bool = False, filler: Filler | None = None
    ) -> None:
        super().__init__()
        self.add_blob("weight", () if channel_shared else (channels,), filler or constant(0.25))

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> PReLU:
        param = message.prelu_param
        shape = context.shapes[0]
        if not 2 <= len(shape) <= 4:
            raise LayerError(f"the bottom must have 2 to 4 axes, got shape {shape}", "bottom")
        has = param.HasField("filler")
        return cls(
            shape[1],
            channel_shared=param.channel_shared,
            filler=fillers.from_message(param.filler, "prelu_param.filler") if has else None,
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        return F.prelu(x, weight if weight.dim() else weight.reshape(1))
