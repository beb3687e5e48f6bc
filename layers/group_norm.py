"""GroupNorm, InstanceNorm and Normalize: normalisation within each item of a batch."""

from __future__ import annotations

from math import prod

import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .arguments import arguments
from .base import Context, Layer, Shape, canonical_axis
from .fillers import constant
from .registry import register


class ChannelAffine(Layer):
    """Base of norms with a factor and a summand for each channel, axis 1, of the bottom."""

    allows_in_place = True
    keeps_shape = True

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, eps: float, affine: bool) -> None:
        super().__init__()
        self.eps = eps
        self.affine = affine
        if affine:
            self.add_blob("weight", (channels,), constant(1.0))
            self.add_blob("bias", (channels,))

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        given = arguments(getattr(message, cls.message_field), cls.message_field)
        shape = context.shapes[0]
        if len(shape) < 2:
            raise LayerError(f"the bottom must have the axes (N, C, ...), got {shape}", "bottom")
        return cls(shape[1], **given)

    @property
    def operands(self) -> tuple[Tensor | None, Tensor | None]:
        return (self.weight, self.bias) if self.affine else (None, None)


@register("GroupNorm")
class GroupNorm(ChannelAffine):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over groups of channels of each item.

    bottom ``(N, C, ...)`` -> top of the same shape. ``num_groups`` must be given and divide C; mean
    and (biased) variance are those of the C / num_groups channels of a group. Blobs: ``weight``
    ``(C)``, which starts at 1, and ``bias`` ``(C)``, at 0; none with ``affine: false``. ``eps`` is
    1e-5. Wu and He 2018.

    Torch: ``F.group_norm``, the same.
    """

    message_field = "group_norm_param"

    def __init__(
        self, channels: int, num_groups: int = 0, *, eps: float = 1e-5, affine: bool = True
    ) -> None:
        if num_groups < 1 or channels % num_groups:
            raise LayerError(
                f"num_groups must be given and divide the {channels} channels, got {num_groups}",
                "group_norm_param.num_groups",
            )
        super().__init__(channels, eps, affine)
        self.num_groups = num_groups

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, *self.operands, self.eps)

    def check_shapes(self, *bottoms: Shape) -> None:
        if prod(bottoms[0]) == self.num_groups:
            raise LayerError(
                f"a group of channels must hold more than 1 value, got shape {bottoms[0]}", "bottom"
            )


@register("InstanceNorm")
class InstanceNorm(ChannelAffine):
    """y = (x - mean) / sqrt(variance + eps) over each channel of each item, in TEST too.

    bottom ``(N, C, ...)`` -> top of the same shape. With ``affine: true`` there are the blobs
    ``weight`` ``(C)``, a factor that starts at 1, and ``bias`` ``(C)``, a summand that starts at 0.
    ``eps`` is 1e-5. Ulyanov et al. 2016. MVN is Caffe's layer of this kind.

    Torch: ``F.instance_norm``, the same, without running statistics.
    """

    message_field = "instance_norm_param"

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__(channels, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        self.check_shapes(x.shape)
        weight, bias = self.operands
        return F.instance_norm(x, weight=weight, bias=bias, eps=self.eps)

    def check_shapes(self, *bottoms: Shape) -> None:
        (shape,) = bottoms
        if len(shape) < 3:
            raise LayerError(
                f"the bottom must have the axes (N, C, ...) and at least one after them, got shape "
                f"{tuple(shape)}",
                "bottom",
            )
        if prod(shape[2:]) == 1:
            raise LayerError(
                f"a channel must hold more than 1 value, got shape {tuple(shape)}", "bottom"
            )


@register("Normalize")
class Normalize(Layer):
    """y = x / max(|x|_p, eps), |x|_p being the p-norm along ``axis``.

    bottom ``(...)`` -> top of the same shape. ``axis`` is 1, ``p`` 2 and ``eps`` 1e-12 by default.

    Torch: ``F.normalize``, the same.
    """

    message_field = "normalize_param"
    allows_in_place = True
    keeps_shape = True

    def __init__(self, axis: int = 1, p: float = 2.0, eps: float = 1e-12) -> None:
        super().__init__()
        if p <= 0:
            raise LayerError(f"p must be greater than 0, got {p:g}", "normalize_param.p")
        self.axis = axis
        self.p = p
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        self.check_shapes(x.shape)
        return F.normalize(x, self.p, self.axis, self.eps)

    def check_shapes(self, *bottoms: Shape) -> None:
        canonical_axis(self.axis, len(bottoms[0]), "normalize_param.axis")
