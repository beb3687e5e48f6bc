"""PositionalEmbedding and ClassToken: what a transformer is told besides its items."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .arguments import arguments
from .base import Context, Layer, Shape
from .fillers import Filler, named
from .registry import register

LEARNED: int = caffe_pb2.PositionalEmbeddingParameter.LEARNED
SINUSOIDAL: int = caffe_pb2.PositionalEmbeddingParameter.SINUSOIDAL


@register("PositionalEmbedding")
class PositionalEmbedding(Layer):
    """y = x + table, the table having a row for each position of a sequence.

    bottom ``(N, T, D)`` -> top of the same shape. ``kind: LEARNED`` (the default): the blob
    ``weight`` ``(num_positions, D)``, drawn with standard deviation 0.02 unless ``weight_filler``
    says otherwise; ``num_positions`` is T unless given, and must not be less. ``kind:
    SINUSOIDAL``: no blob; column 2 i of row t is sin(t / 10000^(2 i / D)), column 2 i + 1 the
    cosine. Vaswani et al. 2017.

    Torch: has none.
    """

    message_field = "positional_embedding_param"
    keeps_shape = True

    weight: Tensor

    def __init__(
        self,
        num_positions: int,
        width: int,
        *,
        kind: int = LEARNED,
        weight_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        self.num_positions = num_positions
        self.kind = kind
        if kind == LEARNED:
            self.add_blob(
                "weight", (num_positions, width), weight_filler or named("gaussian", std=0.02)
            )

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        given = arguments(message.positional_embedding_param, cls.message_field)
        _, positions, width = _sequence(context.shapes[0])
        return cls(given.pop("num_positions") or positions, width, **given)

    def forward(self, x: Tensor) -> Tensor:
        self.check_shapes(x.shape)
        _, positions, width = x.shape
        if self.kind == SINUSOIDAL:
            return x + sinusoids(positions, width, x)
        return x + self.weight[:positions]

    def check_shapes(self, *bottoms: Shape) -> None:
        _, positions, _ = _sequence(bottoms[0])
        if self.kind == LEARNED and positions > self.num_positions:
            raise LayerError(
                f"the bottom has {positions} positions, the table {self.num_positions}: "
                "num_positions must not be less",
                f"{self.message_field}.num_positions",
            )


def _sequence(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise LayerError(
            f"the bottom must have the axes (N, T, D), got shape {tuple(shape)}", "bottom"
        )
    return shape[0], shape[1], shape[2]


def sinusoids(positions: int, width: int, like: Tensor) -> Tensor:
    """The table ``(positions, width)`` of sines and cosines, of the type of ``like``."""
    columns = torch.arange(width, device=like.device)
    rates = torch.exp(-(columns - columns % 2) / width * 9.210340371976184)  # log 10000
    angles = torch.arange(positions, device=like.device)[:, None] * rates
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).to(like.dtype)


@register("ClassToken")
class ClassToken(Layer):
    """A learned item before each sequence, in which a transformer gathers its answer.

    bottom ``(N, T, D)`` -> top ``(N, T + 1, D)``. Blob: ``weight`` ``(D)``, which starts at 0.
    Devlin et al. 2018; Dosovitskiy et al. 2020.

    Torch: has none.
    """

    weight: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_blob("weight", (width,))

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        return cls(_sequence(context.shapes[0])[2])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.weight.expand(x.shape[0], 1, -1), x), 1)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        batch, positions, width = _sequence(bottoms[0])
        return [(batch, positions + 1, width)]
