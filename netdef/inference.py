"""What a net runs in passes without gradients, once it is folded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from . import passes
from .execution import Execution
from .steps import Step


class Watch:
    """Notices when a tensor of some layers is written by torch, or another takes its place.

    What is written through NumPy or ``.data`` goes unnoticed.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._seen = [
            (table, name, tensor, _version(tensor))
            for layer in layers
            for table in (layer._parameters, layer._buffers)
            for name, tensor in table.items()
            if tensor is not None
        ]

    def unchanged(self) -> bool:
        """Whether every tensor is as it was."""
        return all(
            table.get(name) is tensor and _version(tensor) == version
            for table, name, tensor, version in self._seen
        )


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Inference:
    """Steps that hold copies of the weights: normalisation folded in, prepacked on a CPU, otherwise
    of 16 bits where products are.

    For a compiler they consist of plain operations.
    """

    @torch.no_grad()
    def __init__(
        self,
        steps: Sequence[Step],
        layers: Iterable[nn.Module],
        outputs: Collection[str],
        execution: Execution,
        prepack: bool,
    ) -> None:
        self.watch = Watch(layers)
        self.steps = passes.fold_batch_norm(steps, outputs)
        if execution.compile:
            return
        dtype = execution.dtype
        if prepack and dtype != torch.float16 and passes.packs(dtype):
            self.steps = passes.prepack(self.steps, outputs, dtype)
        elif dtype != torch.float32:
            self.steps = passes.narrow(self.steps, dtype)
