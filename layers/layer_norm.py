"""LayerNorm and RMSNorm: each position is normalised over some of its own axes."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .arguments import arguments
from .base import Context, Layer, Shape, canonical_axis
from .fillers import constant
from .registry import register


class AxesNorm(Layer):
    """Base of the layers that normalise ``shape``, the axes of the bottom from ``axis``."""

    keeps_shape = True

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        shape: Shape,
        axis: int,
        *,
        eps: float,
        affine: bool = True,
        bias_term: bool = False,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.axis = axis
        self.eps = eps
        self.affine = affine
        self.bias_term = affine and bias_term
        if affine:
            self.add_blob("weight", shape, constant(1.0))
        if self.bias_term:
            self.add_blob("bias", shape)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        given = arguments(getattr(message, cls.message_field), cls.message_field)
        bottom = context.shapes[0]
        axis = canonical_axis(given.pop("axis"), len(bottom), f"{cls.message_field}.axis")
        count = given.pop("num_axes")
        if count == -1:
            count = len(bottom) - axis
        if not 1 <= count <= len(bottom) - axis:
            raise LayerError(
                f"num_axes must be -1 or from 1 to {len(bottom) - axis} for axis {axis} of a "
                f"bottom of {len(bottom)} axes, got {count}",
                f"{cls.message_field}.num_axes",
            )
        return cls(bottom[axis : axis + count], axis, **given)

    def normalized(self, x: Tensor, normalize: Callable[[Tensor], Tensor]) -> Tensor:
        """``normalize(x)``, which works on the last axes, with the layer's axes moved there."""
        self.check_shapes(x.shape)
        count = len(self.shape)
        if self.axis + count == x.dim():
            return normalize(x)
        own = list(range(self.axis, self.axis + count))
        last = list(range(-count, 0))
        return normalize(x.movedim(own, last)).movedim(last, own)

    def check_shapes(self, *bottoms: Shape) -> None:
        (shape,) = bottoms
        if shape[self.axis : self.axis + len(self.shape)] != self.shape:
            raise LayerError(
                f"the axes from {self.axis} must have the sizes {self.shape}, as when the layer "
                f"was built; got shape {tuple(shape)}",
                "bottom",
            )


@register("LayerNorm")
class LayerNorm(AxesNorm):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over the last axis of each position.

    bottom ``(...)`` -> top of the same shape. Mean and (biased) variance are those of the
    ``num_axes`` (-1, all that follow) axes from ``axis`` (-1, the last). Blobs: ``weight``, which
    starts at 1, and ``bias``, which starts at 0, of the sizes of these axes; ``affine: false``
    leaves out both, ``bias_term: false`` the bias. ``eps`` is 1e-5. Ba et al. 2016.

    Torch: ``F.layer_norm``, the same; it can also be told which axes, not only the last ones.
    """

    message_field = "layer_norm_param"
    allows_in_place = True

    def __init__(
        self,
        shape: Shape,
        axis: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        bias_term: bool = True,
    ) -> None:
        super().__init__(shape, axis, eps=eps, affine=affine, bias_term=bias_term)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.affine else None
        bias = self.bias if self.bias_term else None
        return self.normalized(x, lambda x: F.layer_norm(x, self.shape, weight, bias, self.eps))


@register("RMSNorm")
class RMSNorm(AxesNorm):
    """y = x / sqrt(mean of x^2 + eps) * weight over the last axis of each position.

    bottom ``(...)`` -> top of the same shape. The mean is that of the ``num_axes`` (-1, all that
    follow) axes from ``axis`` (-1, the last). Blob: ``weight``, which starts at 1, of the sizes of
    these axes; none with ``affine: false``. ``eps`` is 1e-6, where torch has the type's smallest
    step. Zhang and Sennrich 2019.

    Torch: ``F.rms_norm`` with another eps.
    """

    message_field = "rms_norm_param"
    allows_in_place = True

    def __init__(self, shape: Shape, axis: int, *, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(shape, axis, eps=eps, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.affine else None
        return self.normalized(x, lambda x: F.rms_norm(x, self.shape, weight, self.eps))
