"""What a pass will need at its peak, found by running it on tensors without memory.

The net runs as it would, forward and backward, with the same passes, settings and kernels, but on
fake tensors; every storage is counted from its first use until nobody holds it. No formulas for
layers.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers.native import library
from ..proto import caffe_pb2
from . import blueprint
from .blueprint import NetSource
from .execution import Execution
from .inner_products import unshared
from .inputs import with_inputs
from .net import Net
from .state import State, parse_phase


class Tally(TorchDispatchMode):
    """Counts the bytes of every storage that operations make, while it lives, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.count(each)
        return result

    def count(self, tensor: Tensor) -> None:
        """Count the tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self._known[key] = weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.now -= size
        self._known.pop(key, None)


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a pass needs: the parameters, what an update keeps for them, and the peak of all.

    Not in it: the process itself, a GPU's context, and the workspace inside of kernels.
    """

    parameters: int
    history: int
    peak: int


def batched(
    source: NetSource,
    phase: str,
    batch: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> caffe_pb2.NetParameter:
    """The net with Input layers in place of its sources, for ``batch`` images (0: its own).

    Data need not be there if ``shapes`` or the definition tell the shapes of their blobs.
    """
    state = State(parse_phase(phase))
    document = with_inputs(blueprint.load_definition(source), state, shapes)
    plan = blueprint.draw(document, phase)
    message = caffe_pb2.NetParameter()
    message.CopyFrom(plan.message)
    del message.layer[:]
    for each in plan.order:
        layer = message.layer.add()
        if each in plan.sources:
            layer.name, layer.type = each.name, "Input"
            layer.top.extend(each.tops)
            for shape in each.top_shapes:
                dims = [batch, *shape[1:]] if batch and shape else shape
                layer.input_param.shape.add().dim.extend(dims)
        else:
            layer.CopyFrom(each.spec.message)
    return message


def predict(
    message: caffe_pb2.NetParameter,
    phase: str,
    execution: Execution,
    slots: int = 1,
    *,
    kernels: bool = True,
    early: bool = False,
) -> Need:
    """What one iteration of ``message`` needs with a solver that keeps ``slots`` blobs a parameter.

    ``message`` comes from :func:`batched`. In TEST it is a forward pass without gradients.
    ``kernels``: with the compiled kernels that a CPU would use, and not as on a GPU. ``early``:
    with update_in_backward, which frees each gradient as soon as it is known.
    """
    training = phase == "TRAIN"
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        if kernels:
            stack.enter_context(library.rehearsal())
        net = Net(message, phase, execution=execution, check_memory=False)
        blobs = [p.tensor for p in net.params]
        batch = {name: torch.zeros(shape) for name, shape in net.inputs.items()}
        if early:
            _free_gradients(net)
        tally = Tally()
        for tensor in (*blobs, *batch.values()):
            tally.count(tensor)
        parameters = sum(t.untyped_storage().nbytes() for t in blobs)
        history = slots * parameters if training else 0
        with tally, torch.set_grad_enabled(training):
            outputs, loss = net.run(batch)
            del outputs
            if training and loss.requires_grad:
                loss.backward()
        tally_peak = tally.peak
    return Need(parameters, history, tally_peak + history)


def _free_gradients(net: Net) -> None:
    def free(parameter: Tensor) -> None:
        parameter.grad = None

    for param in net.params:
        if param.tensor.requires_grad:
            param.tensor.register_post_accumulate_grad_hook(free)
    for _, layer in unshared(net):
        layer.taker = lambda grad, rows: True


def largest_batch(needs: Sequence[tuple[int, int]], limit: int) -> int:
    """The most images within ``limit`` bytes, as the line through two (batch, bytes) says."""
    (low, small), (high, large) = needs
    per_image = (large - small) / (high - low)
    fixed = small - per_image * low
    if per_image <= 0:
        return high if large <= limit else 0
    return max(0, int((limit - fixed) // per_image))
