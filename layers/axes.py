"""Permute, Transpose, Squeeze and Unsqueeze: the same values with the axes elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..proto.errors import LayerError
from .base import Layer, Shape, canonical_axis
from .registry import register


@register("Permute")
class Permute(Layer):
    """Axis i of the top is axis ``order[i]`` of the bottom.

    Axes that ``order`` does not name follow in their own order, so that ``order: 0 order: 2`` of a
    bottom ``(N, C, H, W)`` gives ``(N, H, C, W)``.

    Torch: ``torch.permute``, which must name all axes.
    """

    message_field = "permute_param"

    def __init__(self, order: Sequence[int] = ()) -> None:
        super().__init__()
        self.order = tuple(order)
        self._whole: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self._completed(x.dim()))

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        return [tuple(shape[axis] for axis in self._completed(len(shape)))]

    def _completed(self, dims: int) -> tuple[int, ...]:
        """The order with the axes that it does not name."""
        if len(self._whole) == dims:
            return self._whole
        named = [canonical_axis(axis, dims, "permute_param.order") for axis in self.order]
        if len(set(named)) != len(named):
            raise LayerError(
                f"order must name each axis once at most, got {list(self.order)}",
                "permute_param.order",
            )
        self._whole = (*named, *(axis for axis in range(dims) if axis not in named))
        return self._whole


@register("Transpose")
class Transpose(Layer):
    """The axes ``axis1`` (-2) and ``axis2`` (-1) change places.

    Torch: ``torch.transpose``, the same.
    """

    message_field = "transpose_param"

    def __init__(self, axis1: int = -2, axis2: int = -1) -> None:
        super().__init__()
        self.axis1 = axis1
        self.axis2 = axis2

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(*self._axes(x.dim()))

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        shape = list(bottoms[0])
        first, second = self._axes(len(shape))
        shape[first], shape[second] = shape[second], shape[first]
        return [tuple(shape)]

    def _axes(self, dims: int) -> tuple[int, int]:
        first = canonical_axis(self.axis1, dims, "transpose_param.axis1")
        return first, canonical_axis(self.axis2, dims, "transpose_param.axis2")


@register("Squeeze")
class Squeeze(Layer):
    """The axes that ``axis`` names, each of size 1, are removed; all of size 1 if it names none.

    Where the batch may be 1 name the axes: otherwise its axis goes too.

    Torch: ``torch.squeeze``, which leaves axes of another size as they are.
    """

    message_field = "squeeze_param"

    def __init__(self, axis: Sequence[int] = ()) -> None:
        super().__init__()
        self.axis = tuple(axis)

    def forward(self, x: Tensor) -> Tensor:
        (shape,) = self.top_shapes(x.shape)
        return x.reshape(shape)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        if not self.axis:
            return [tuple(size for size in shape if size != 1)]
        axes = [canonical_axis(axis, len(shape), "squeeze_param.axis") for axis in self.axis]
        for axis in axes:
            if shape[axis] != 1:
                raise LayerError(
                    f"axis {axis} must have size 1 to be removed, got shape {tuple(shape)}",
                    "squeeze_param.axis",
                )
        return [tuple(size for axis, size in enumerate(shape) if axis not in axes)]


@register("Unsqueeze")
class Unsqueeze(Layer):
    """The top has a further axis of size 1, its axis ``axis`` (1; -1 is the last).

    Torch: ``torch.unsqueeze``, the same.
    """

    message_field = "unsqueeze_param"

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self._axis(x.dim()))

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        axis = self._axis(len(shape))
        return [(*shape[:axis], 1, *shape[axis:])]

    def _axis(self, dims: int) -> int:
        return canonical_axis(self.axis, dims + 1, "unsqueeze_param.axis")
