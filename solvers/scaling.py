"""Execution settings as a solver states them, and the scale of losses under FP16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..netdef.execution import FP16, Execution
from ..proto.caffe_pb2 import SolverParameter
from ..proto.errors import ResourceError

_GROWTH, _BACKOFF, _INTERVAL = 2.0, 0.5, 2000


def execution_of(solver: SolverParameter) -> Execution:
    """The execution settings that the fields of ``solver`` ask for."""
    return Execution(
        precision=SolverParameter.Precision.Name(solver.precision),
        memory_format=SolverParameter.MemoryFormat.Name(solver.memory_format),
        recompute=tuple(solver.recompute),
        compile=solver.compile or solver.cuda_graphs,
        cuda_graphs=solver.cuda_graphs,
    )


def scaler_for(execution: Execution, device: torch.device) -> LossScaler | None:
    """A scaler where gradients could vanish in 16-bit floats with 5 bits of exponent."""
    if execution.cuda_graphs and device.type != "cuda":
        raise ResourceError("cuda_graphs needs a GPU; leave it out on the CPU")
    return LossScaler(device) if execution.precision == FP16 else None


class LossScaler:
    """Multiplies the loss, so that small gradients survive FP16, and divides gradients by the same.

    The factor is halved when a gradient overflows, and doubled after 2,000 iterations without one
    (Micikevicius et al. 2018). Telling whether to update waits for the device.
    """

    def __init__(self, device: torch.device, scale: float = 2.0**16) -> None:
        self.scale = scale
        self._device = device
        self._good = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """``loss`` times the factor, for backward."""
        return loss * self.scale

    def unscale(self, gradients: Sequence[Tensor]) -> bool:
        """Divide the gradients, in place; whether all are finite. Adapts the factor."""
        if not gradients:
            return True
        found = torch.zeros(1, device=self._device)
        inverse = torch.full((1,), 1 / self.scale, device=self._device)
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), found, inverse)
        if bool(found):
            self.scale *= _BACKOFF
            self._good = 0
            return False
        self._good += 1
        if self._good % _INTERVAL == 0:
            self.scale *= _GROWTH
        return True

    def state_dict(self) -> dict[str, float]:
        """Factor and count, for a run that is to continue exactly."""
        return {"scale": self.scale, "good": self._good}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.scale, self._good = float(state["scale"]), int(state["good"])
