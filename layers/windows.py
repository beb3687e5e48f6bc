"""Windows that slide over spatial axes: what Convolution, Deconvolution and Im2col share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Shape, canonical_axis

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Kernel, stride, pad and dilation, one number for each spatial axis.

    ``axis`` is the channel axis: those before it are batch axes, those after it spatial.
    """

    axis: int
    kernel: Sizes
    stride: Sizes
    pad: Sizes
    dilation: Sizes

    @classmethod
    def from_message(cls, param: caffe_pb2.ConvolutionParameter, shape: Shape) -> Windows:
        """Read the windows over a bottom of ``shape``; LayerError for counts that do not fit."""
        axis = canonical_axis(param.axis, len(shape), "convolution_param.axis")
        count = len(shape) - axis - 1
        return cls(
            axis,
            _sizes(param, "kernel_size", "kernel", count, default=None, low=1),
            _sizes(param, "stride", "stride", count, default=1, low=1),
            _sizes(param, "pad", "pad", count, default=0, low=0),
            _sizes(param, "dilation", None, count, default=1, low=1),
        )

    def check_fit(self, spatial: Sequence[int]) -> None:
        """LayerError if a kernel is larger than the padded bottom, whose axes are ``spatial``."""
        for size, kernel, pad, dilation in zip(
            spatial, self.kernel, self.pad, self.dilation, strict=True
        ):
            extent = dilation * (kernel - 1) + 1
            if size + 2 * pad < extent:
                raise LayerError(
                    f"the kernel covers {extent} pixels, but its bottom has only {size} "
                    f"with a pad of {pad} on both sides",
                    "convolution_param.kernel_size",
                )

    def convolved(self, spatial: Sequence[int]) -> Sizes:
        """Windows along each axis of ``spatial``: the top's sizes; LayerError if there are none."""
        self.check_fit(spatial)
        axes = zip(spatial, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        return tuple((a + 2 * p - d * (k - 1) - 1) // s + 1 for a, k, s, p, d in axes)

    def transposed(self, spatial: Sequence[int]) -> Sizes:
        """The sizes that give ``spatial`` when convolved; LayerError if padding takes all."""
        axes = zip(spatial, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        sizes = tuple(s * (a - 1) + d * (k - 1) + 1 - 2 * p for a, k, s, p, d in axes)
        for size, pad in zip(sizes, self.pad, strict=True):
            if size < 1:
                raise LayerError(
                    f"a pad of {pad} leaves nothing of the top", "convolution_param.pad"
                )
        return sizes

    def columns(self, x: Tensor) -> Tensor:
        """Each window of ``x`` as a column.

        ``(batch, channels, *spatial)`` -> ``(batch, channels * prod(kernel), *windows)``, the
        channel outermost, as in Caffe's im2col.
        """
        count = len(self.kernel)
        x = F.pad(x, [p for pad in reversed(self.pad) for p in (pad, pad)])
        for index in range(count):
            extent = self.dilation[index] * (self.kernel[index] - 1) + 1
            x = x.unfold(2 + index, extent, self.stride[index])[..., :: self.dilation[index]]
        places, taps = range(2, 2 + count), range(2 + count, 2 + 2 * count)
        x = x.permute(0, 1, *taps, *places)
        return x.reshape(x.shape[0], x.shape[1] * prod(self.kernel), *x.shape[2 + count :])


def _sizes(
    param: caffe_pb2.ConvolutionParameter,
    repeated: str,
    prefix: str | None,
    count: int,
    default: int | None,
    low: int,
) -> Sizes:
    """One size for each of ``count`` spatial axes, from a repeated field or its _h and _w form."""
    values = list(getattr(param, repeated))
    field = f"convolution_param.{repeated}"
    pair = [f"{prefix}_h", f"{prefix}_w"] if prefix else []
    if any(param.HasField(name) for name in pair):
        if values:
            raise LayerError(f"give either {repeated} or {' and '.join(pair)}, not both", field)
        if count != 2:
            raise LayerError(
                f"{' and '.join(pair)} work with 2 spatial axes only, here are {count}",
                f"convolution_param.{pair[0]}",
            )
        values = [getattr(param, name) for name in pair]
    elif not values and default is not None:
        values = [default] * count
    elif not values and count:
        raise LayerError(f"{repeated} (or {' and '.join(pair)}) must be given", field)
    if len(values) not in (1, count):
        raise LayerError(
            f"{repeated} must be given once or once for each of the {count} spatial axes, "
            f"got {len(values)} values",
            field,
        )
    if min(values, default=low) < low:
        raise LayerError(f"{repeated} must be at least {low}, got {min(values)}", field)
    return tuple(values) if len(values) == count else tuple(values) * count
