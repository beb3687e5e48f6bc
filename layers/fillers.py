"""Weight fillers: how a parameter blob is initialised before training.

A filler is a function that fills a tensor in place. The types of Caffe's FillerParameter are in
one table; :func:`filler_type` adds to it, :func:`from_message` reads from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError, nearest

#: Fills a CPU tensor in place, drawing from torch's global generator. It is also called once on a
#: meta tensor, when the blob is declared, so that it can refuse a shape it cannot fill; it computes
#: nothing then, as torch would import its compiler to do so.
Filler = Callable[[Tensor], None]

#: Reads a FillerParameter whose place in the LayerParameter is the given dotted path.
Reader = Callable[[caffe_pb2.FillerParameter, str], Filler]

_readers: dict[str, Reader] = {}


def filler_type(name: str) -> Callable[[Reader], Reader]:
    """Decorator: make a reader available in prototxt as ``type: "<name>"``."""

    def enter(reader: Reader) -> Reader:
        _readers[name] = reader
        return reader

    return enter


def filler_types() -> Iterator[str]:
    """All registered filler names, sorted."""
    return iter(sorted(_readers))


def from_message(message: caffe_pb2.FillerParameter, path: str = "filler") -> Filler:
    """The filler that ``message`` declares.

    ``path`` is the message's dotted place inside the LayerParameter, for errors. Raises LayerError
    for an unknown type or a value that cannot work.
    """
    if message.type not in _readers:
        raise LayerError(
            f"unknown filler type {message.type!r}{nearest(message.type, _readers)} "
            f"(known: {', '.join(filler_types())})",
            f"{path}.type",
        )
    if message.sparse != -1 and message.type != "gaussian":
        raise LayerError(
            f"sparse works with type 'gaussian' only, got type {message.type!r}", f"{path}.sparse"
        )
    return _readers[message.type](message, path)


def named(name: str, **fields: Any) -> Filler:
    """The filler of a type and fields that code chooses: ``named("gaussian", std=0.02)``."""
    return from_message(caffe_pb2.FillerParameter(type=name, **fields))


def constant(value: float) -> Filler:
    """Every element is ``value``."""

    def fill(blob: Tensor) -> None:
        blob.fill_(value)

    return fill


def _draw_uniform(blob: Tensor, low: float, high: float) -> None:
    if not blob.is_meta:
        blob.uniform_(low, high)


def _draw_normal(blob: Tensor, mean: float, std: float) -> None:
    if not blob.is_meta:
        blob.normal_(mean, std)


@filler_type("constant")
def _read_constant(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    return constant(message.value)


@filler_type("uniform")
def _read_uniform(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    """Uniform in [min, max)."""
    low, high = message.min, message.max
    if low > high:
        raise LayerError(f"min must be at most max, got {low:g} and {high:g}", f"{path}.min")

    def fill(blob: Tensor) -> None:
        _draw_uniform(blob, low, high)

    return fill


@filler_type("gaussian")
def _read_gaussian(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    """Normal with ``mean`` and ``std``; ``sparse: s`` keeps each value with chance s / shape[0].

    s is then the mean number of inputs that feed one output and are not zero.
    """
    mean, std, sparse = message.mean, message.std, message.sparse
    if std <= 0:
        raise LayerError(f"std must be greater than 0, got {std:g}", f"{path}.std")
    if sparse < -1:
        raise LayerError(
            f"sparse must be at least 0 (or -1 for off), got {sparse}", f"{path}.sparse"
        )

    def fill(blob: Tensor) -> None:
        _draw_normal(blob, mean, std)
        if sparse == -1:
            return
        outputs = blob.shape[0] if blob.dim() else 1
        if sparse > outputs:
            raise LayerError(
                f"sparse must be at most the first axis of the blob ({outputs}), got {sparse}",
                f"{path}.sparse",
            )
        if not blob.is_meta:
            blob.mul_(torch.empty_like(blob).bernoulli_(sparse / outputs))

    return fill


@filler_type("positive_unitball")
def _read_positive_unitball(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    """Uniform in [0, 1), then each row (first axis) scaled to the sum 1."""

    def fill(blob: Tensor) -> None:
        if blob.is_meta:
            return
        rows = blob.uniform_(0, 1).view(blob.shape[0] if blob.dim() else 1, -1)
        rows.div_(rows.sum(1, keepdim=True))

    return fill


@filler_type("xavier")
def _read_xavier(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    """Uniform in ±sqrt(3 / n), n by ``variance_norm`` (Glorot and Bengio 2010)."""
    mode = message.variance_norm

    def fill(blob: Tensor) -> None:
        bound = math.sqrt(3.0 / _fan(blob, mode))
        _draw_uniform(blob, -bound, bound)

    return fill


@filler_type("msra")
def _read_msra(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    """Normal with variance 2 / n, n by ``variance_norm`` (He et al. 2015)."""
    mode = message.variance_norm

    def fill(blob: Tensor) -> None:
        _draw_normal(blob, 0.0, math.sqrt(2.0 / _fan(blob, mode)))

    return fill


def _fan(blob: Tensor, mode: int) -> float:
    """Connections of an output (FAN_IN), of an input (FAN_OUT), or their mean (AVERAGE).

    As in Caffe: all elements over the first axis, and over the second axis where there is one.
    """
    count = blob.numel()
    fan_in = count / blob.shape[0] if blob.dim() else 1.0
    fan_out = count / blob.shape[1] if blob.dim() > 1 else float(count)
    if mode == caffe_pb2.FillerParameter.FAN_OUT:
        return fan_out
    if mode == caffe_pb2.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_in


@filler_type("bilinear")
def _read_bilinear(message: caffe_pb2.FillerParameter, path: str) -> Filler:
    """A tent in each (output, input) plane: a Deconvolution with it interpolates bilinearly.

    The blob must have four axes and square planes (Long et al. 2015).
    """

    def fill(blob: Tensor) -> None:
        if blob.dim() != 4 or blob.shape[2] != blob.shape[3]:
            raise LayerError(
                "the bilinear filler needs a blob of 4 axes with a square kernel, "
                f"got shape {tuple(blob.shape)}",
                f"{path}.type",
            )
        if blob.is_meta:
            return
        size = blob.shape[3]
        factor = math.ceil(size / 2)
        centre = (size - 1) / (2.0 * factor)
        tent = 1 - (torch.arange(size, dtype=torch.float64) / factor - centre).abs()
        blob.copy_(torch.outer(tent, tent))

    return fill
