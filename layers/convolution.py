"""Convolution and Deconvolution over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from . import fillers
from .base import Context, Layer, Shape, at_least
from .fillers import Filler
from .native import library, winograd, winograd_plans
from .registry import register
from .windows import Windows

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DECONVOLVE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
#: Where a convolution over single pixels is a matrix product (:meth:`Convolution._multiplies`).
_MANY_FILTERS, _FEW_PIXELS = 1 << 17, 1 << 11


class _Filtering(Layer):
    """What Convolution and Deconvolution share: windows, groups, blobs, several bottoms."""

    message_field = "convolution_param"
    bottoms = at_least(1)
    tops = at_least(1)
    #: Whether the weight's first axis counts the bottom's channels rather than the top's.
    transposed: ClassVar[bool] = False

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        channels: int,
        num_output: int,
        windows: Windows,
        *,
        group: int = 1,
        bias_term: bool = True,
        weight_filler: Filler | None = None,
        bias_filler: Filler | None = None,
    ) -> None:
        super().__init__()
        for count, what in ((channels, "the bottom's channels"), (num_output, "num_output")):
            if group < 1 or count % group:
                raise LayerError(
                    f"group must divide {what} ({count}), got {group}", "convolution_param.group"
                )
        self.channels = channels
        self.num_output = num_output
        self.windows = windows
        self.group = group
        self.bias_term = bias_term
        first, second = (channels, num_output) if self.transposed else (num_output, channels)
        self.add_blob("weight", (first, second // group, *windows.kernel), weight_filler)
        if bias_term:
            self.add_blob("bias", (num_output,), bias_filler)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        param = message.convolution_param
        shape = context.shapes[0]
        if param.num_output == 0:
            raise LayerError("num_output must be given and positive", "convolution_param")
        if context.num_tops != len(context.shapes):
            raise LayerError(
                f"there must be one top for each bottom, got {context.num_tops} tops and "
                f"{len(context.shapes)} bottoms",
                "top",
            )
        windows = Windows.from_message(param, shape)
        return cls(
            shape[windows.axis],
            param.num_output,
            windows,
            group=param.group,
            bias_term=param.bias_term,
            weight_filler=fillers.from_message(
                param.weight_filler, "convolution_param.weight_filler"
            ),
            bias_filler=fillers.from_message(param.bias_filler, "convolution_param.bias_filler"),
        )

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._one(x) for x in bottoms)

    def _one(self, x: Tensor) -> Tensor:
        axis = self.windows.axis
        self._top_shape(tuple(x.shape))
        if axis == 1:
            return self.filter(x)
        y = self.filter(x.reshape(-1, *x.shape[axis:]))
        return y.reshape(*x.shape[:axis], *y.shape[1:])

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [self._top_shape(shape) for shape in bottoms]

    def _top_shape(self, shape: Shape) -> Shape:
        axis = self.windows.axis
        spatial = shape[axis + 1 :]
        if (
            len(shape) <= axis
            or shape[axis] != self.channels
            or len(spatial) != len(self.windows.kernel)
        ):
            raise LayerError(
                f"every bottom must have {self.channels} channels at axis {axis} and "
                f"{len(self.windows.kernel)} spatial axes, got shape {shape}"
            )
        sizes = self.windows.transposed if self.transposed else self.windows.convolved
        return (*shape[:axis], self.num_output, *sizes(spatial))

    def filter(self, x: Tensor) -> Tensor:
        """The top for a bottom with one batch axis."""
        raise NotImplementedError


@register("Convolution")
class Convolution(_Filtering):
    """y[o] = sum over c of weight[o, c] * x[c] + bias[o], * a correlation over spatial axes.

    bottom ``(..., channels, *spatial)`` -> top ``(..., num_output, *out)``, the channels at
    ``axis`` (1); out = floor((in + 2 pad - dilation (kernel - 1) - 1) / stride) + 1 for each of any
    number of spatial axes. Several bottoms give as many tops with the same blobs. Blobs: ``weight``
    ``(num_output, channels / group, *kernel)``; ``bias`` ``(num_output)`` unless ``bias_term`` is
    false. ``engine`` and ``force_nd_im2col`` choose only Caffe's code path.

    Torch: ``F.conv1d`` to ``F.conv3d``, the same; no padding modes.
    """

    def filter(self, x: Tensor) -> Tensor:
        return self._filter(x, rectified=False)

    def rectified(self, x: Tensor) -> Tensor:
        """The top for one bottom with a ReLU after it, which overwrites it."""
        if self.windows.axis != 1:
            return F.relu_(self._one(x))
        self._top_shape(tuple(x.shape))
        return self._filter(x, rectified=True)

    def _filter(self, x: Tensor, rectified: bool) -> Tensor:
        w = self.windows
        bias = self.bias if self.bias_term else None
        plan = winograd_plans.plan(x, self.weight, w.stride, w.pad, w.dilation, self.group)
        if plan is not None:
            return winograd.convolve(plan, x, self.weight, bias, rectified)
        if self._multiplies(x):
            weight = self.weight.view(self.num_output, self.channels)
            y = F.linear(x.permute(0, 2, 3, 1), weight, bias)
            return (F.relu_(y) if rectified else y).permute(0, 3, 1, 2)
        y = self._by_torch(x, bias)
        return F.relu_(y) if rectified else y

    def _by_torch(self, x: Tensor, bias: Tensor | None) -> Tensor:
        w = self.windows
        count = len(w.kernel)
        if count in _CONVOLVE:
            return _CONVOLVE[count](x, self.weight, bias, w.stride, w.pad, w.dilation, self.group)
        columns = w.columns(x)
        places = columns.shape[2:]
        columns = columns.reshape(x.shape[0], self.group, -1, prod(places))
        weight = self.weight.reshape(self.group, self.num_output // self.group, -1)
        y = torch.matmul(weight, columns).reshape(x.shape[0], self.num_output, *places)
        return y if bias is None else y + bias.reshape(-1, *[1] * count)

    def _multiplies(self, x: Tensor) -> bool:
        """Whether to convolve by a matrix product: for a CPU's convolutions filters are put into
        another order each time, which takes long where they are many and the pixels few."""
        w = self.windows
        return (
            self.weight.numel() >= _MANY_FILTERS
            and w.kernel == w.stride == (1, 1)
            and self.group == 1
            and not any(w.pad)
            and x.numel() // self.channels <= _FEW_PIXELS
            and x.is_contiguous(memory_format=torch.channels_last)
            and library.suits(x, self.weight)
        )

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        per_place = self.weight.numel() // self.num_output
        return sum(prod(top) for top in tops) * per_place


@register("Deconvolution")
class Deconvolution(_Filtering):
    """The transpose of Convolution: each bottom value adds a weighted kernel to the top.

    bottom ``(..., channels, *spatial)`` -> top ``(..., num_output, *out)``; out = stride (in - 1) +
    dilation (kernel - 1) + 1 - 2 pad. Blobs: ``weight`` ``(channels, num_output / group,
    *kernel)``; ``bias`` ``(num_output)``. Fields as in Convolution. Zeiler et al. 2010.

    Torch: ``F.conv_transpose2d``, without ``output_padding``.
    """

    transposed = True

    def __init__(self, channels: int, num_output: int, windows: Windows, **options: object) -> None:
        if len(windows.kernel) not in _DECONVOLVE:
            raise LayerError(
                f"Deconvolution works over 1 to 3 spatial axes, got {len(windows.kernel)}",
                "convolution_param.axis",
            )
        super().__init__(channels, num_output, windows, **options)  # type: ignore[arg-type]

    def filter(self, x: Tensor) -> Tensor:
        w = self.windows
        return _DECONVOLVE[len(w.kernel)](
            x,
            self.weight,
            self.bias if self.bias_term else None,
            w.stride,
            w.pad,
            0,
            self.group,
            w.dilation,
        )

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        per_place = self.weight.numel() // self.channels
        return sum(prod(bottom) for bottom in bottoms) * per_place
