"""BatchNorm: normalisation by the statistics of the batch, without scale and bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import TEST, Context, Layer
from .native import batch_norm as native
from .registry import register


@register("BatchNorm")
class BatchNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) for each channel (axis 1); ``eps`` is 1e-5.

    In TRAIN the mean and (biased) variance are the batch's, and running sums are kept in three
    blobs, which gradients do not change: ``mean`` and ``variance`` ``(C)`` and ``scale_factor``
    ``(1)``. Each becomes f times itself plus, in this order, the batch's mean, its variance times
    m / (m - 1) for m values a channel, and 1; f is ``moving_average_fraction``, 0.999. In TEST, or
    with ``use_global_stats``, the statistics are the first two blobs over the third (0 where that
    is 0). The bottom has 2 or more axes. Scale and bias, if wanted, are a Scale layer after it.
    Ioffe and Szegedy 2015.

    Torch: ``F.batch_norm`` has weight and bias, which are a Scale layer here, keeps the statistics
    themselves instead of a sum and its scale, and multiplies them by its momentum, 1 -
    ``moving_average_fraction``.
    """

    message_field = "batch_norm_param"
    allows_in_place = True
    keeps_shape = True

    mean: Tensor
    variance: Tensor
    scale_factor: Tensor

    def __init__(
        self,
        channels: int,
        *,
        use_global_stats: bool = False,
        moving_average_fraction: float = 0.999,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.use_global_stats = use_global_stats
        self.moving_average_fraction = moving_average_fraction
        self.eps = eps
        #: False while a pass is only repeated for its gradient: it must not count twice.
        self.counting = True
        self.add_blob("mean", (channels,), learnable=False)
        self.add_blob("variance", (channels,), learnable=False)
        self.add_blob("scale_factor", (1,), learnable=False)

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> BatchNorm:
        param = message.batch_norm_param
        shape = context.shapes[0]
        if len(shape) < 2:
            raise LayerError(f"the bottom must have at least 2 axes, got shape {shape}", "bottom")
        for index, spec in enumerate(message.param):
            if spec.lr_mult != 0:
                raise LayerError(
                    "the blobs of BatchNorm are statistics that are not learned: lr_mult must be "
                    f"0, got {spec.lr_mult:g}",
                    f"param.{index}.lr_mult",
                )
        has = param.HasField("use_global_stats")
        return cls(
            shape[1],
            use_global_stats=param.use_global_stats if has else context.phase == TEST,
            moving_average_fraction=param.moving_average_fraction,
            eps=param.eps,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x)

    def normalize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        addend: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        """The top, with what layers after this one would do to it: times ``weight`` plus ``bias``
        (C), plus ``addend`` of the bottom's shape, a ReLU; all as far as they are given."""
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise LayerError(
                f"the bottom must have {self.channels} channels at axis 1, "
                f"got shape {tuple(x.shape)}",
                "bottom",
            )
        plan = None if self.use_global_stats else native.plan(x, weight, bias, addend)
        if plan is not None:
            y, mean, variance = native.normalize(plan, x, weight, bias, addend, self.eps, relu)
            if self.counting:
                self._accumulate(mean, variance)
            return y
        y = self._by_torch(x, weight, bias)
        y = y if addend is None else y + addend
        return F.relu_(y) if relu else y

    def _by_torch(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.use_global_stats:
            mean, variance = self.statistics()
            return _batch_norm(x, weight, bias, mean, variance, False, self.eps)
        if x.numel() // self.channels > 1:
            mean, variance = torch.zeros_like(self.mean), torch.zeros_like(self.variance)
            # With momentum 1 torch leaves the batch's mean and its variance * m / (m - 1) here.
            y = _batch_norm(x, weight, bias, mean, variance, True, self.eps)
        else:
            mean, variance = x.detach().reshape(-1), torch.zeros_like(self.variance)
            y = x - x
            if weight is not None:
                shape = (-1, *[1] * (x.dim() - 2))
                y = y * weight.view(shape)
                y = y if bias is None else y + bias.view(shape)
        if self.counting:
            self._accumulate(mean, variance)
        return y

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance as TEST uses them: the first two blobs over the third."""
        factor = self.scale_factor
        inverse = torch.where(factor == 0, 0, 1 / torch.where(factor == 0, 1, factor))
        return self.mean * inverse, self.variance * inverse

    @torch.no_grad()
    def _accumulate(self, mean: Tensor, variance: Tensor) -> None:
        fraction = self.moving_average_fraction
        self.mean.mul_(fraction).add_(mean)
        self.variance.mul_(fraction).add_(variance)
        self.scale_factor.mul_(fraction).add_(1)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    eps: float,
) -> Tensor:
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(x, weight, bias, mean, variance, training, 1.0, eps, cudnn)
