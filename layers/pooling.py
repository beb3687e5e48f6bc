"""Pooling with Caffe's size and divisor rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import TRAIN, Context, Layer, Shape, between
from .native import pooling as kernels
from .registry import register

MAX: int = caffe_pb2.PoolingParameter.MAX
AVE: int = caffe_pb2.PoolingParameter.AVE
STOCHASTIC: int = caffe_pb2.PoolingParameter.STOCHASTIC

Pair = tuple[int, int]
_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the windows of one forward lie, for height and width each.

    A last window may reach ``beyond`` the padded bottom (rounding up), or even start beyond it
    (no padding, stride larger than kernel).
    """

    kernel: Pair
    stride: Pair
    pad: Pair
    sizes: Pair
    out: Pair

    @property
    def whole(self) -> bool:
        """Whether one window covers just the whole plane."""
        return self.kernel == self.sizes and self.out == (1, 1) and not any(self.pad)

    @property
    def beyond(self) -> Pair:
        """Pixels that the last windows need after the bottom; negative where some go unused."""
        return tuple(  # type: ignore[return-value]
            (o - 1) * s + k - size - p
            for o, s, k, size, p in zip(
                self.out, self.stride, self.kernel, self.sizes, self.pad, strict=True
            )
        )

    def native(self) -> bool | None:
        """The ``ceil_mode`` with which torch makes these very windows; None if it cannot."""
        if any(2 * p > k for p, k in zip(self.pad, self.kernel, strict=True)):
            return None
        for ceil_mode in (False, True):
            axes = zip(self.sizes, self.kernel, self.stride, self.pad, self.out, strict=True)
            if all(_torch_size(a, k, s, p, ceil_mode) == out for a, k, s, p, out in axes):
                return ceil_mode
        return None

    def padded(self, x: Tensor, value: float) -> Tensor:
        """``x`` with ``value`` around it, so that the windows fill it exactly."""
        (top, left), (bottom, right) = self.pad, self.beyond
        return F.pad(x, (left, right, top, bottom), value=value)


def _torch_size(size: int, kernel: int, stride: int, pad: int, ceil_mode: bool) -> int:
    out = (size + 2 * pad - kernel + (stride - 1 if ceil_mode else 0)) // stride + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + pad else out


@register("Pooling")
class Pooling(Layer):
    """The maximum, average or a random element of each window of each channel.

    bottom ``(N, C, H, W)`` -> top ``(N, C, H', W')``; with MAX a second top holds the position
    h * W + w of each maximum, as a float. H' = ceil((H + 2 pad - kernel) / stride) + 1
    (``round_mode: FLOOR`` rounds down); with padding, a last window that would start beyond the
    bottom is dropped. MAX ignores padding, and of equal values takes the first. AVE counts padding
    but not what lies beyond it. STOCHASTIC draws an element with a chance proportional to its
    value in TRAIN and weighs by it in TEST (Zeiler and Fergus 2013; values must not be negative).
    A window without any pixel gives -FLT_MAX (position -1) with MAX and 0 otherwise.
    ``global_pooling`` takes the whole plane. ``engine`` changes nothing.

    Torch: ``F.max_pool2d`` and ``F.avg_pool2d`` round down unless told otherwise (``ceil_mode``),
    and then drop a last window that would start beyond the bottom, without padding too.
    """

    message_field = "pooling_param"
    tops = between(1, 2)

    def __init__(
        self,
        pool: int = MAX,
        kernel: Pair | None = None,
        stride: Pair = (1, 1),
        pad: Pair = (0, 0),
        *,
        ceil_mode: bool = True,
        with_mask: bool = False,
        phase: int = TRAIN,
    ) -> None:
        super().__init__()
        if with_mask and pool != MAX:
            raise LayerError("only MAX pooling has a second top (the mask)", "top")
        if pool == STOCHASTIC and any(pad):
            raise LayerError("STOCHASTIC pooling has no padding", "pooling_param.pad")
        if kernel and any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise LayerError(
                f"pad must be smaller than the kernel {kernel}, got {pad}", "pooling_param.pad"
            )
        self.pool = pool
        self.kernel = kernel
        self.stride = stride
        self.pad = pad
        self.ceil_mode = ceil_mode
        self.with_mask = with_mask
        self.sampling = phase == TRAIN

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Pooling:
        param = message.pooling_param
        kernel = _pair(param, "kernel_size", "kernel")
        if param.global_pooling and kernel:
            raise LayerError(
                "global_pooling takes the whole plane: give no kernel size",
                "pooling_param.kernel_size",
            )
        if not param.global_pooling and not kernel:
            raise LayerError("kernel_size must be given and positive", "pooling_param")
        stride = _pair(param, "stride", "stride") or (param.stride, param.stride)
        pad = _pair(param, "pad", "pad") or (param.pad, param.pad)
        if min(stride) < 1 or min(kernel or (1, 1)) < 1:
            raise LayerError("kernel_size and stride must be positive", "pooling_param")
        if param.global_pooling and (stride != (1, 1) or any(pad)):
            raise LayerError(
                "global_pooling works with pad 0 and stride 1 only", "pooling_param.global_pooling"
            )
        return cls(
            param.pool,
            kernel,
            stride,
            pad,
            ceil_mode=param.round_mode == caffe_pb2.PoolingParameter.CEIL,
            with_mask=context.num_tops == 2,
            phase=context.phase,
        )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        grid = self._grid(tuple(x.shape))
        if self.with_mask:
            return maximum_with_mask(x, grid)
        return pooled(x, grid, self.pool, self.sampling)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        top = (*bottoms[0][:2], *self._grid(bottoms[0]).out)
        return [top, top] if self.with_mask else [top]

    def _grid(self, shape: Shape) -> Grid:
        if len(shape) != 4:
            raise LayerError(
                f"the bottom must have 4 axes (N, C, H, W), got shape {shape}", "bottom"
            )
        sizes = (shape[2], shape[3])
        return make_grid(sizes, self.kernel or sizes, self.stride, self.pad, self.ceil_mode)


def _pair(param: caffe_pb2.PoolingParameter, single: str, prefix: str) -> Pair | None:
    """Height and width from one field or from its _h and _w form; None where neither is given."""
    names = (f"{prefix}_h", f"{prefix}_w")
    given = [param.HasField(name) for name in names]
    if not any(given):
        value = getattr(param, single)
        return (value, value) if param.HasField(single) else None
    if param.HasField(single) or not all(given):
        raise LayerError(
            f"give either {single} or both {names[0]} and {names[1]}", f"pooling_param.{single}"
        )
    return getattr(param, names[0]), getattr(param, names[1])


def make_grid(sizes: Pair, kernel: Pair, stride: Pair, pad: Pair, ceil_mode: bool = True) -> Grid:
    """The windows over planes of ``sizes``; LayerError where the kernel is too large for them."""
    out = []
    for size, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        room = size + 2 * p - k
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if any(pad) and (count - 1) * s >= size + p:
            count -= 1
        if count < 1:
            raise LayerError(
                f"the kernel of {k} pixels is larger than its bottom, which has {size} "
                f"with a pad of {p} on both sides",
                "pooling_param.kernel_size",
            )
        out.append(count)
    return Grid(kernel, stride, pad, sizes, (out[0], out[1]))


def pooled(x: Tensor, grid: Grid, pool: int, sampling: bool) -> Tensor:
    """One pooling of ``x`` by the method ``pool``; ``sampling`` says how STOCHASTIC does it."""
    if pool == AVE:
        return average(x, grid)
    return stochastic(x, grid, sampling) if pool == STOCHASTIC else maximum(x, grid)


def maximum(x: Tensor, grid: Grid) -> Tensor:
    """The largest value of each window; of equals, the first gets the gradient."""
    plan = kernels.plan(x, grid)
    if plan is not None:
        return kernels.maximum(plan, x)
    ceil_mode = grid.native()
    if ceil_mode is None:
        return F.max_pool2d(grid.padded(x, _LOWEST), grid.kernel, grid.stride)
    return F.max_pool2d(x, grid.kernel, grid.stride, grid.pad, ceil_mode=ceil_mode)


def maximum_with_mask(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """:func:`maximum`, and where in its plane each maximum was found."""
    ceil_mode = grid.native()
    if ceil_mode is not None:
        y, index = F.max_pool2d(
            x, grid.kernel, grid.stride, grid.pad, ceil_mode=ceil_mode, return_indices=True
        )
        return y, index.to(x.dtype)
    padded = grid.padded(x, _LOWEST)
    y, index = F.max_pool2d(padded, grid.kernel, grid.stride, return_indices=True)
    row = index // padded.shape[3] - grid.pad[0]
    column = index % padded.shape[3] - grid.pad[1]
    inside = (row < x.shape[2]) & (column < x.shape[3])
    return y, torch.where(inside, row * x.shape[3] + column, -1).to(x.dtype)


def average(x: Tensor, grid: Grid) -> Tensor:
    """The sum of each window over its size, clipped to the padded bottom."""
    plan = kernels.plan(x, grid)
    if plan is not None:
        return kernels.average(plan, x)
    if grid.whole:
        return x.mean((2, 3), keepdim=True)
    ceil_mode = grid.native()
    if ceil_mode is not None:
        return F.avg_pool2d(x, grid.kernel, grid.stride, grid.pad, ceil_mode)
    total = F.avg_pool2d(grid.padded(x, 0.0), grid.kernel, grid.stride, divisor_override=1)
    rows, columns = (
        (torch.arange(out, device=x.device) * -s + (size + 2 * p)).clamp(1, k).to(x.dtype)
        for out, s, size, p, k in zip(
            grid.out, grid.stride, grid.sizes, grid.pad, grid.kernel, strict=True
        )
    )
    return total / (rows[:, None] * columns)


def stochastic(x: Tensor, grid: Grid, sampling: bool) -> Tensor:
    """A random element of each window (``sampling``), or their mean weighted by themselves."""
    planes = grid.padded(x, 0.0).flatten(0, 1).unsqueeze(1)
    windows = F.unfold(planes, grid.kernel, stride=grid.stride)
    if sampling:
        running = windows.detach().cumsum(1)
        draw = torch.rand_like(running[:, :1]) * running[:, -1:]
        # The first element whose running sum reaches the draw; rounding cannot pass the last.
        chosen = (running < draw).sum(1, keepdim=True).clamp(max=prod(grid.kernel) - 1)
        y = windows.gather(1, chosen)
    else:
        total = windows.sum(1, keepdim=True)
        squares = (windows * windows).sum(1, keepdim=True)
        y = torch.where(total > 0, squares / torch.where(total > 0, total, 1), 0)
    return y.reshape(*x.shape[:2], *grid.out)
