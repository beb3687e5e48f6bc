"""A small declaration of a layer with its bottoms, from which the contract tests are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from google.protobuf import text_format
from torch import Tensor

from cortado.layers.base import TRAIN, Context, Layer
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

    def graded_inputs(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Bottoms that ask for gradients, except labels."""
        skip = dict(self.labels)
        found = self.inputs(dtype)
        return [x if i in skip else x.requires_grad_() for i, x in enumerate(found)]


N4 = (2, 3, 5, 4)
N2 = (4, 3)
FILL = 'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 }'
