"""DummyData: batches made by fillers, for tests and for timing without a database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...proto import caffe_pb2
from ...proto.errors import LayerError
from ..base import Context, Shape, at_least
from ..fillers import Filler, from_message
from ..registry import register
from ..source import DataSource
from .buffers import uploaded
from .counter_random import Purpose, named_seed, word
from .shapes import checked, per_top, shape_of

_LEGACY_FIELDS = ("num", "channels", "height", "width")


@register("DummyData")
class DummyData(DataSource):
    """Tops filled by fillers: constants once, everything else anew for each batch, as in Caffe.

    ``fillers`` holds one filler a top and ``constant`` says which of them need no refill. Random
    values depend on the seed, the layer's name and the number of the batch only.
    """

    message_field = "dummy_data_param"
    tops = at_least(1)

    def __init__(
        self,
        shapes: Sequence[Shape],
        fillers: Sequence[Filler],
        constant: Sequence[bool],
        name: str = "",
    ) -> None:
        self.shapes = tuple(shapes)
        self._fillers = tuple(fillers)
        self._constant = tuple(constant)
        self._name = name
        self._filled: dict[tuple[int, torch.device], Tensor] = {}
        self._batches = 0
        self.seed(0)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> DummyData:
        parameters = message.dummy_data_param
        if len(parameters.data_filler) not in (0, 1, context.num_tops):
            raise LayerError(
                "must be given never, once, or once for each of the "
                f"{context.num_tops} tops, got {len(parameters.data_filler)} fillers",
                "dummy_data_param.data_filler",
            )
        messages = per_top(
            list(parameters.data_filler) or [caffe_pb2.FillerParameter()],
            context.num_tops,
            "dummy_data_param.data_filler",
        )
        return cls(
            _stated_shapes(parameters, context.num_tops),
            [
                from_message(filler, f"dummy_data_param.data_filler.{index}")
                for index, filler in enumerate(messages)
            ],
            [filler.type == "constant" for filler in messages],
            message.name,
        )

    def seed(self, seed: int) -> None:
        self._seed = named_seed(seed, self._name)

    def preset(self, device: torch.device) -> tuple[Tensor | None, ...]:
        return tuple(
            self._top(index, device) if constant else None
            for index, constant in enumerate(self._constant)
        )

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        tops = tuple(self._top(index, device) for index in range(len(self.shapes)))
        self._batches += 1
        return tops

    def _top(self, index: int, device: torch.device) -> Tensor:
        if not self._constant[index]:
            with torch.random.fork_rng(devices=[]):
                # The host's generator alone: torch.manual_seed would set those of GPUs as well.
                seed = word(self._seed, Purpose.FILL, self._batches, index) >> 1
                torch.default_generator.manual_seed(seed)
                return uploaded(self._fill(index), device)
        if (index, device) not in self._filled:
            self._filled[index, device] = self._fill(index).to(device)
        return self._filled[index, device]

    def _fill(self, index: int) -> Tensor:
        values = torch.empty(self.shapes[index])
        self._fillers[index](values)
        return values

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches = int(state["batches"])

    def close(self) -> None:
        self._filled.clear()


def _stated_shapes(parameters: caffe_pb2.DummyDataParameter, num_tops: int) -> list[Shape]:
    """The shape of each top, from ``shape`` or from Caffe's older four fields."""
    legacy = {name: list(getattr(parameters, name)) for name in _LEGACY_FIELDS}
    if not any(legacy.values()):
        shapes = [
            shape_of(shape, f"dummy_data_param.shape.{index}")
            for index, shape in enumerate(parameters.shape)
        ]
        return per_top(shapes, num_tops, "dummy_data_param.shape")
    if parameters.shape:
        raise LayerError(
            "give either shape or num, channels, height and width, got both",
            "dummy_data_param.shape",
        )
    columns = [
        per_top(values, num_tops, f"dummy_data_param.{name}") for name, values in legacy.items()
    ]
    return [checked(sizes, "dummy_data_param") for sizes in zip(*columns, strict=True)]
