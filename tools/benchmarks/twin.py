"""The same net written in plain torch: what a user would write by hand, made from a net's steps.

Each layer becomes the torch.nn module of its kind (nn.LocalResponseNorm, nn.BatchNorm2d with its
affine part for BatchNorm and Scale, pooling with ceil_mode ...), and the calls become straight-line
code by torch.fx, so that the twin pays for no interpreter of ours. Weights are copied.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...layers.eltwise import SUM
from ...layers.pooling import AVE, MAX
from ...netdef import Net
from ...netdef.steps import Step
from ...proto.errors import ConfigError

Translator = Callable[[Step], nn.Module | Callable[..., Tensor]]
_TRANSLATORS: dict[str, Translator] = {}
#: Layers that a training step or a forward pass does not need.
_LEFT_OUT = {"Accuracy", "Silence", "ArgMax"}


def translator(*types: str) -> Callable[[Translator], Translator]:
    def add(function: Translator) -> Translator:
        _TRANSLATORS.update(dict.fromkeys(types, function))
        return function

    return add


def known() -> set[str]:
    """The types of layers that can be in a net that is to have a twin."""
    return {*_TRANSLATORS, *_LEFT_OUT, "Split", "Scale"}


class _Loss(nn.Module):
    """nn.CrossEntropyLoss times the weight in the net's loss."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(scores, labels)
        return loss if self.weight == 1 else self.weight * loss


@translator("Convolution")
def _convolution(step: Step) -> nn.Module:
    layer: Any = step.layer
    windows = layer.windows
    return nn.Conv2d(
        layer.channels,
        layer.num_output,
        windows.kernel,
        windows.stride,
        windows.pad,
        windows.dilation,
        layer.group,
        layer.bias_term,
    )


@translator("InnerProduct")
def _inner_product(step: Step) -> nn.Module:
    layer: Any = step.layer
    linear = nn.Linear(layer.inputs, step.top_shapes[0][-1], layer.bias_term)
    return nn.Sequential(nn.Flatten(), linear) if len(step.bottom_shapes[0]) > 2 else linear


@translator("Pooling")
def _pooling(step: Step) -> nn.Module:
    layer: Any = step.layer
    kernel: Any = layer.kernel or step.bottom_shapes[0][2:]
    if layer.pool == MAX:
        return nn.MaxPool2d(kernel, layer.stride, layer.pad, ceil_mode=layer.ceil_mode)
    if layer.pool == AVE:
        return nn.AvgPool2d(kernel, layer.stride, layer.pad, ceil_mode=layer.ceil_mode)
    raise _untranslatable(step)


@translator("LRN")
def _lrn(step: Step) -> nn.Module:
    layer: Any = step.layer
    if layer.within_channel:
        raise _untranslatable(step)
    return nn.LocalResponseNorm(layer.local_size, layer.alpha, layer.beta, layer.k)


@translator("ReLU")
def _relu(step: Step) -> nn.Module:
    layer: Any = step.layer
    slope, in_place = layer.negative_slope, bool(step.in_place)
    return nn.LeakyReLU(slope, in_place) if slope else nn.ReLU(in_place)


@translator("Dropout")
def _dropout(step: Step) -> nn.Module:
    layer: Any = step.layer
    return nn.Dropout(layer.dropout_ratio)


@translator("Concat")
def _concat(step: Step) -> Callable[..., Tensor]:
    layer: Any = step.layer
    return partial(_cat, axis=layer.axis)


def _cat(*bottoms: Tensor, axis: int) -> Tensor:
    return torch.cat(bottoms, axis)


@translator("Eltwise")
def _eltwise(step: Step) -> Callable[..., Tensor]:
    layer: Any = step.layer
    if len(step.bottoms) != 2 or layer.operation != SUM or any(layer.coeff):
        raise _untranslatable(step)
    return operator.add


@translator("Softmax")
def _softmax(step: Step) -> nn.Module:
    return nn.Softmax(1)


@translator("SoftmaxWithLoss")
def _loss(step: Step) -> nn.Module:
    return _Loss(step.losses.get(0, 0.0))


@translator("BatchNorm")
def _batch_norm(step: Step) -> nn.Module:
    layer: Any = step.layer
    norm = nn.BatchNorm2d(layer.channels, layer.eps, 1 - layer.moving_average_fraction)
    if float(layer.scale_factor) > 0:
        norm.running_mean, norm.running_var = (each.clone() for each in layer.statistics())
    return norm


def build(net: Net) -> fx.GraphModule:
    """The twin of ``net``: called with its inputs in order (labels as int64), it gives the loss, or
    the first output where there is none. Raises ConfigError for a layer it has no words for."""
    graph, root = fx.Graph(), nn.Module()
    blobs = {name: graph.placeholder(name.replace("/", "_")) for name in net.inputs}
    losses: list[fx.Node] = []
    normalised: dict[str, tuple[Step, nn.BatchNorm2d]] = {}
    for number, step in enumerate(net.steps):
        if step.type in _LEFT_OUT:
            continue
        bottoms = [blobs[name] for name in step.bottoms]
        if step.type == "Split":
            blobs.update(dict.fromkeys(step.tops, bottoms[0]))
            continue
        if step.type == "Scale" and step.bottoms[0] in normalised and step.layer.bias_term:
            _copy(list(step.layer.parameters()), normalised[step.bottoms[0]][1])
            blobs[step.tops[0]] = bottoms[0]
            continue
        if step.type not in _TRANSLATORS:
            raise _untranslatable(step)
        made = _TRANSLATORS[step.type](step)
        if isinstance(made, nn.Module):
            target = f"m{number}"
            root.add_module(target, made)
            node = graph.call_module(target, tuple(bottoms))
            _copy(list(step.layer.parameters()), made)
        else:
            axis = made.keywords if isinstance(made, partial) else {}
            function = made.func if isinstance(made, partial) else made
            node = graph.call_function(function, tuple(bottoms), axis)
        if isinstance(made, nn.BatchNorm2d):
            normalised[step.tops[0]] = (step, made)
        if isinstance(made, _Loss):
            losses.append(node)
        blobs[step.tops[0]] = node
    graph.output(_sum(graph, losses) if losses else blobs[net.outputs[0]])
    return fx.GraphModule(root, graph)


def _sum(graph: fx.Graph, terms: Sequence[fx.Node]) -> fx.Node:
    total = terms[0]
    for term in terms[1:]:
        total = graph.call_function(operator.add, (total, term))
    return total


@torch.no_grad()
def _copy(blobs: Sequence[Tensor], module: nn.Module) -> None:
    for own, blob in zip(module.parameters(), blobs, strict=False):
        own.copy_(blob)


def _untranslatable(step: Step) -> ConfigError:
    return ConfigError(f"layer {step.name!r}: no plain torch code is known for this {step.type}")
