"""A device without values: what waits for it, copies from or to it, or mixes it with others fails.

Fake tensors have shapes and a device but no values, so that asking for one is an error. The device
is ``lazy``, as all but the CPU and meta are taken for an accelerator, and unlike CUDA's it needs
neither a driver nor hardware for autograd's engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = "lazy"
#: What asking for a value, copying and mixing devices raise.
WAITED = (RuntimeError, DataDependentOutputException, DynamicOutputShapeException)
#: Operations that can copy between devices.
COPIES = ("_to_copy", "copy_", "_foreach_copy_", "_local_scalar_dense")


class FakeKernels(TorchDispatchMode):
    """Looks closer at operations on lists of tensors than fake tensors do.

    All their tensors must be on one device. Fused updates have no fake form at all: their arguments
    are held against what CUDA's kernels demand, and that is all.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name.startswith(("_foreach_", "_fused_", "_amp_foreach_")):
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            if len({each.device for each in tensors}) > 1:
                raise RuntimeError(f"{name} of tensors on several devices")
        if name.startswith(("_fused_", "_amp_foreach_")):
            return _check_lists(name, args)
        return function(*args, **(kwargs or {}))


def _check_lists(name: str, args: Sequence[Any]) -> None:
    """Parameters and what belongs to them must be of one type and layout, without gaps."""
    alike = [each for each in args if isinstance(each, list | tuple) and each]
    alike = [each for each in alike if each[0].dim() or not alike[0][0].dim()]
    for group in zip(*alike, strict=True):
        if len({(each.shape, each.stride(), each.dtype) for each in group}) > 1:
            raise RuntimeError(f"{name} of tensors that are not alike")
        if not torch.ops.aten.is_non_overlapping_and_dense.default(group[0]):
            raise RuntimeError(f"{name} of tensors with gaps")


class NoCopies(FakeKernels):
    """Refuses every copy between the host and the device."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        name = function.overloadpacket.__name__
        if name in COPIES:
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            if len({x.device.type for x in tensors}) > 1:
                raise RuntimeError(f"{name} between the host and the device")
        return result


class LateCopies(NoCopies):
    """Refuses copies but those to the host that nobody waits for.

    What is read of them is True; ``read`` counts how often that was. Whether it was read too early
    is not seen: fake tensors know nothing of time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self._copies: list[Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name == "_local_scalar_dense" and any(args[0] is each for each in self._copies):
            self.read += 1
            return True
        if name == "_to_copy" and (kwargs or {}).get("non_blocking"):
            result: Tensor = function(*args, **(kwargs or {}))
            if result.device.type == "cpu":
                self._copies.append(result)
                return result
        return super().__torch_dispatch__(function, types, args, kwargs)


class Answers(FakeKernels):
    """Lets everything through, and answers all questions for a value; ``asked`` counts those to the
    device."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = answer
        self.asked = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function.overloadpacket.__name__ == "_local_scalar_dense":
            self.asked += args[0].device.type == DEVICE
            return self.answer
        return super().__torch_dispatch__(function, types, args, kwargs)
