"""Python: layers written for Caffe's Python interface, on numpy arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import TEST, TRAIN, Context, Layer, Shape, at_least
from .imports import searching
from .registry import register


class MethodError(LayerError):
    """A method of a Python layer raised what is the cause of this error."""


class NumpyBlob:
    """A blob as Caffe's Python layers see it: ``data`` and ``diff``, float32 arrays."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.data = np.zeros(tuple(shape), np.float32)
        self._diff: np.ndarray | None = None

    @property
    def diff(self) -> np.ndarray:
        if self._diff is None or self._diff.shape != self.data.shape:
            self._diff = np.zeros_like(self.data)
        return self._diff

    @property
    def shape(self) -> Shape:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size

    def reshape(self, *shape: int) -> None:
        if self.data.shape != shape:
            self.data = np.zeros(shape, np.float32)

    def legacy_axis(self, axis: int) -> int:
        return self.data.shape[axis] if axis < self.data.ndim else 1

    num = property(lambda self: self.legacy_axis(0))
    channels = property(lambda self: self.legacy_axis(1))
    height = property(lambda self: self.legacy_axis(2))
    width = property(lambda self: self.legacy_axis(3))


class BlobVector(list[NumpyBlob]):
    """The parameter blobs of a Python layer."""

    def add_blob(self, *shape: int) -> NumpyBlob:
        self.append(NumpyBlob(shape))
        return self[-1]


class PythonLayer:
    """What ``caffe.Layer`` is to layers written for Caffe: override these four methods.

    ``param_str``, ``phase`` (0 TRAIN, 1 TEST) and ``blobs`` are there from ``setup`` on.
    """

    type: ClassVar[str] = "Python"
    param_str: str = ""
    phase: int = TRAIN
    blobs: BlobVector

    def setup(self, bottom: list[NumpyBlob], top: list[NumpyBlob]) -> None: ...

    def reshape(self, bottom: list[NumpyBlob], top: list[NumpyBlob]) -> None: ...

    def forward(self, bottom: list[NumpyBlob], top: list[NumpyBlob]) -> None: ...

    def backward(
        self, top: list[NumpyBlob], propagate_down: list[bool], bottom: list[NumpyBlob]
    ) -> None: ...


@register("Python")
class Python(Layer):
    """A class ``layer`` of the Python module ``module``, with Caffe's interface, unchanged.

    The class has ``setup``, ``reshape``, ``forward`` (bottom, top) and ``backward`` (top,
    propagate_down, bottom), working on numpy arrays ``data`` and ``diff``, and finds ``param_str``,
    ``phase`` and ``blobs`` on itself. ``import caffe`` in its module gives ``caffe.Layer`` even
    where Caffe is not installed; the module is also looked for in the working directory. The
    parameters are called ``blob0``, ``blob1`` … On CUDA blobs are copied to the host and back, and
    the layer cannot be traced by torch.compile. ``share_in_parallel`` changes nothing, as every
    process has its own net.

    Torch: has none.
    """

    repeatable = False
    message_field = "python_param"
    place: Tensor
    bottoms = at_least(0)
    tops = at_least(0)
    allows_in_place = True

    def __init__(self, instance: Any, shapes: Sequence[Shape], num_tops: int) -> None:
        super().__init__()
        self.instance = instance
        self.inputs = [NumpyBlob(shape) for shape in shapes]
        self.outputs = [NumpyBlob() for _ in range(num_tops)]
        # Says where tops belong if there is neither bottom nor parameter.
        self.register_buffer("place", torch.empty(0), persistent=False)
        self.call("setup", self.inputs, self.outputs)
        self.call("reshape", self.inputs, self.outputs)
        for index, blob in enumerate(instance.blobs):
            self.add_blob(f"blob{index}", blob.data.shape, _copy_from(blob.data))

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Python:
        param = message.python_param
        instance = _find_class(param.module, param.layer)()
        instance.param_str = param.param_str
        instance.phase = context.phase
        instance.blobs = BlobVector()
        return cls(instance, context.shapes, context.num_tops)

    def adopt(self) -> None:
        """Let the instance's ``blobs`` be the parameters: the same memory on the CPU, else a copy.

        What the methods write into them on the CPU is so seen by the net, and the other way round.
        """
        for index, blob in enumerate(self.instance.blobs):
            tensor = self.blob(index).detach()
            if tensor.device.type == "cpu":
                blob.data = tensor.numpy()
            else:
                blob.reshape(*tensor.shape)
                blob.data[...] = tensor.cpu().numpy()

    def call(self, method: str, *arguments: object) -> None:
        """Call one of the four methods; what it raises becomes a MethodError that names it."""
        try:
            getattr(self.instance, method)(*arguments)
        except Exception as error:
            name = f"{type(self.instance).__name__}.{method}"
            raise MethodError(f"{name} raised {type(error).__name__}: {error}") from error

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if any(x.is_meta for x in (*bottoms, *self.parameters())):
            return self.infer(bottoms)
        parameters = [self.blob(index) for index in range(len(self.blobs))]
        tops: tuple[Tensor, ...] = _Run.apply(self, len(bottoms), *bottoms, *parameters)
        return tops

    def infer(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Shapes by the layer's own ``reshape``; nothing is computed."""
        for blob, bottom in zip(self.inputs, bottoms, strict=True):
            blob.reshape(*bottom.shape)
        self.call("reshape", self.inputs, self.outputs)
        return tuple(torch.empty(blob.shape, device="meta") for blob in self.outputs)

    def materialize(self, device: torch.device | str = "cpu") -> None:
        super().materialize(device)
        self.place = self.place.to(device)

    def take(self, bottoms: Sequence[Tensor]) -> None:
        """Copy tensors to the arrays that the methods read."""
        self.adopt()
        for blob, tensor in zip(self.inputs, bottoms, strict=True):
            blob.reshape(*tensor.shape)
            blob.data[...] = tensor.detach().cpu().numpy()


class _Run(torch.autograd.Function):
    """One forward and backward of a Python layer."""

    @staticmethod
    def forward(ctx: Any, layer: Python, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.layer, ctx.count = layer, count
        ctx.save_for_backward(*tensors)
        layer.take(tensors[:count])
        layer.call("reshape", layer.inputs, layer.outputs)
        layer.call("forward", layer.inputs, layer.outputs)
        like = tensors[0] if tensors else layer.place
        return tuple(
            torch.tensor(b.data, dtype=like.dtype, device=like.device) for b in layer.outputs
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        layer, count, tensors = ctx.layer, ctx.count, ctx.saved_tensors
        layer.take(tensors[:count])
        for blob, grad in zip(layer.outputs, grads, strict=True):
            blob.diff[...] = 0 if grad is None else grad.cpu().numpy()
        receivers = [*layer.inputs, *layer.instance.blobs]
        for blob in receivers:
            blob.diff[...] = 0
        wanted = list(ctx.needs_input_grad[2:])
        layer.call("backward", layer.outputs, wanted[:count], layer.inputs)
        diffs = (
            torch.tensor(blob.diff, dtype=tensor.dtype, device=tensor.device) if needed else None
            for blob, tensor, needed in zip(receivers, tensors, wanted, strict=True)
        )
        return (None, None, *diffs)


def _copy_from(values: np.ndarray) -> Callable[[Tensor], None]:
    """A filler that gives a blob the values which ``setup`` gave it."""

    def fill(blob: Tensor) -> None:
        blob.copy_(torch.from_numpy(values))

    return fill


def _find_class(module: str, layer: str) -> type[Any]:
    for name, value in (("module", module), ("layer", layer)):
        if not value:
            raise LayerError(f"{name} must be given", f"python_param.{name}")
    with _importable():
        try:
            loaded = import_module(module)
        except ImportError as error:
            raise LayerError(
                f"cannot import the module {module!r}: {error}", "python_param.module"
            ) from error
    found = getattr(loaded, layer, None)
    if not isinstance(found, type):
        raise LayerError(f"the module {module!r} has no class {layer!r}", "python_param.layer")
    return found


@contextmanager
def _importable() -> Iterator[None]:
    """Find modules in the working directory too, and a ``caffe`` with ``Layer`` in it."""
    if "caffe" not in sys.modules and find_spec("caffe") is None:
        stand_in = ModuleType("caffe", "What Cortado offers to layers written for Caffe.")
        stand_in.__dict__.update(Layer=PythonLayer, TRAIN=TRAIN, TEST=TEST)
        sys.modules["caffe"] = stand_in
    with searching([Path.cwd()]):
        yield
