"""For inference on a CPU: convolutions and inner products with weights in oneDNN's own layout.

What follows a convolution, a sum with another blob and a ReLU, is computed while its result is
still in registers. The operations are those that torch's own compiler emits; autograd has none for
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.activations import ReLU
from ...layers.base import Shape
from ...layers.convolution import Convolution
from ...layers.eltwise import SUM, Eltwise
from ...layers.inner_product import InnerProduct
from ...layers.native import few_rows, winograd, winograd_plans
from ...layers.native.winograd_plans import Case, Problem
from ..layout import channels_last
from ..steps import Step
from .fold import Folded
from .in_place import Rectifier
from .prune import freed
from .readers import Flow, only_reader, plain, running, trace
from .rectify import RectifiedConvolution

_ops: Any = torch.ops.mkldnn
# The overloads by name, as torch would look for the one that fits in every call.
_convolution: Any = _ops._convolution_pointwise.default
_convolution_and_sum: Any = _ops._convolution_pointwise.binary
_packed_product: Any = _ops._linear_pointwise.default


def available(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and computes in ``dtype`` on this processor."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and bool(_ops._is_mkldnn_bf16_supported())
    )


class PackedConvolution:
    """A convolution over 2 axes, perhaps with a second bottom that is added, and a ReLU at last.

    The weights are those of the moment of packing, in the layout that is best for bottoms of
    ``shape``; other shapes work as well.
    """

    def __init__(
        self, convolution: Convolution, shape: Shape, dtype: torch.dtype, relu: bool
    ) -> None:
        w = convolution.windows
        self.dtype = dtype
        self.windows = (list(w.pad), list(w.stride), list(w.dilation), convolution.group)
        self.bias = convolution.bias.detach().to(dtype) if convolution.bias_term else None
        weight = convolution.weight.detach().to(dtype)
        self.weight = _ops._reorder_convolution_weight(weight, *self.windows, list(shape))
        self.relu = relu

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        given = (self.weight, self.bias, *self.windows)
        x = x.to(self.dtype)
        result: Tensor
        if other is None:
            after = "relu" if self.relu else "none"
            result = _convolution(x, *given, after, [], "")
        else:
            last = "relu" if self.relu else None
            result = _convolution_and_sum(x, other.to(self.dtype), *given, "add", 1.0, last, [], "")
        return result


class TiledConvolution:
    """A convolution by Winograd's filtering, with filters transformed once; else as
    :class:`PackedConvolution`."""

    def __init__(self, problem: Problem, case: Case, convolution: Convolution, relu: bool) -> None:
        self.problem = problem
        self.case = case
        weight = channels_last(convolution.weight.detach())
        self.points = winograd.filter_points(problem, case, weight)
        self.bias = convolution.bias.detach() if convolution.bias_term else None
        self.relu = relu

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        problem = self.problem
        images, _, height, width = x.shape
        if (images, height, width) != (problem.images, problem.height, problem.width):
            problem = replace(problem, images=images, height=height, width=width)
        other = None if other is None else channels_last(other)
        x = channels_last(x.to(self.points.dtype))
        return winograd.run(problem, self.case, x, self.points, self.bias, other, self.relu)


class PackedProduct:
    """An inner product, perhaps with a ReLU; weights as in :class:`PackedConvolution`."""

    def __init__(self, layer: InnerProduct, rows: int, dtype: torch.dtype, relu: bool) -> None:
        weight = layer.weight.t() if layer.transpose else layer.weight
        self.axis = layer.axis
        self.dtype = dtype
        self.bias = layer.bias.detach().to(dtype) if layer.bias_term else None
        self.weight = _ops._reorder_linear_weight(weight.detach().to(dtype).contiguous(), rows)
        self.relu = "relu" if relu else "none"

    def __call__(self, x: Tensor) -> Tensor:
        x = x.flatten(self.axis).to(self.dtype)
        result: Tensor = _packed_product(x, self.weight, self.bias, self.relu, [], "")
        return result


class PlainProduct:
    """An inner product of few rows with the layer's own weights, perhaps with a ReLU; of more, as
    :class:`PackedProduct`."""

    def __init__(self, layer: InnerProduct, relu: bool) -> None:
        self.layer = layer
        self.relu = relu

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        x = x.flatten(layer.axis).to(layer.weight.dtype)
        bias = layer.bias if layer.bias_term else None
        if few_rows.suits(x, layer.weight, bias):
            return few_rows.product(x, layer.weight, bias, self.relu)
        y = F.linear(x, layer.weight, bias)
        return y.relu_() if self.relu else y


@dataclass(frozen=True, slots=True)
class _Tail:
    """The steps after a product that it computes as well, and the blob that it adds."""

    gone: tuple[int, ...] = ()
    other: str | None = None
    relu: bool = False


def prepack(steps: Sequence[Step], outputs: Collection[str], dtype: torch.dtype) -> list[Step]:
    """``steps``, fused and folded before, with products in oneDNN's layout and ``dtype``."""
    flow = trace(steps, outputs)
    result = list(steps)
    gone: set[int] = set()
    for index, step in enumerate(steps):
        found = _packed(steps, flow, index, dtype)
        if found is None:
            continue
        operation, tail = found
        gone.update(tail.gone)
        last = steps[tail.gone[-1] if tail.gone else index]
        result[index] = running(
            step,
            operation,
            bottoms=step.bottoms if tail.other is None else (*step.bottoms, tail.other),
            tops=last.tops,
            in_place=frozenset(),
        )
    return freed([step for index, step in enumerate(result) if index not in gone], outputs)


def _packed(
    steps: Sequence[Step], flow: Flow, index: int, dtype: torch.dtype
) -> tuple[Callable[..., Tensor], _Tail] | None:
    """What takes the place of step ``index`` and of those after it, if it is a product."""
    step = steps[index]
    layer: object = step.layer
    if not plain(step) or len(step.tops) != 1:
        return None
    if type(layer) is InnerProduct and layer.axis and layer.weight.dtype == torch.float32:
        tail = _tail(steps, flow, index)
        return _product(layer, prod(step.top_shapes[0][:-1]), dtype, tail.relu), tail
    convolution, rectified = layer, False
    if isinstance(layer, Folded | RectifiedConvolution):
        convolution, rectified = layer.convolution, layer.relu
    if type(convolution) is not Convolution or convolution.windows.axis != 1:
        return None
    if convolution.weight.dim() != 4 or convolution.weight.dtype != torch.float32:
        return None
    tail = _Tail(relu=True) if rectified else _tail(steps, flow, index, sums=True)
    return _filtering(convolution, step.bottom_shapes[0], dtype, tail.relu), tail


def _product(
    layer: InnerProduct, rows: int, dtype: torch.dtype, relu: bool
) -> PackedProduct | PlainProduct:
    """The faster of the two for ``rows`` rows."""
    bias, plain_weight = layer.bias if layer.bias_term else None, not layer.transpose
    given = torch.empty(rows, layer.inputs)
    if dtype == torch.float32 and plain_weight and few_rows.suits(given, layer.weight, bias):
        return PlainProduct(layer, relu)
    return PackedProduct(layer, rows, dtype, relu)


def _filtering(
    convolution: Convolution, shape: Shape, dtype: torch.dtype, relu: bool
) -> PackedConvolution | TiledConvolution:
    """The faster of the two for bottoms of ``shape``."""
    w = convolution.windows
    filters = tuple(convolution.weight.shape)
    if dtype == torch.float32:
        problem = winograd_plans.problem_of(
            shape, filters, w.stride, w.pad, w.dilation, convolution.group
        )
        case = None if problem is None else problem.fastest(kept=True)
        if problem is not None and case is not None:
            return TiledConvolution(problem, case, convolution, relu)
    return PackedConvolution(convolution, shape, dtype, relu)


def _tail(steps: Sequence[Step], flow: Flow, index: int, sums: bool = False) -> _Tail:
    """What follows step ``index`` alone: with ``sums`` a sum, then perhaps a ReLU."""
    gone: tuple[int, ...] = ()
    other = None
    following = only_reader(flow, index)
    if sums and following is not None:
        other = _summand(steps, flow, index, following)
        if other is not None:
            gone = (following,)
            following = only_reader(flow, following)
    if following is not None and _is_relu(steps[following]):
        return _Tail((*gone, following), other, relu=True)
    return _Tail(gone, other)


def _summand(steps: Sequence[Step], flow: Flow, index: int, following: int) -> str | None:
    """The blob that step ``following`` adds to the top of ``index``, if it exists before that."""
    step = steps[following]
    layer: object = step.layer
    if type(layer) is not Eltwise or not plain(step) or len(step.bottoms) != 2:
        return None
    if layer.operation != SUM or layer.quirk or any(factor != 1 for factor in layer.coeff):
        return None
    top = flow.tops[index][0]
    others = [each for each in flow.bottoms[following] if each is not top]
    if len(others) != 1 or (others[0].writer is not None and others[0].writer > index):
        return None
    return others[0].name


def _is_relu(step: Step) -> bool:
    layer: object = step.layer
    return plain(step) and isinstance(layer, ReLU | Rectifier) and not layer.negative_slope
