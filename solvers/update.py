"""The update of a net's parameters: clip, divide, regularise, then the solver's rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..netdef import ParamRef
from ..proto.caffe_pb2 import SolverParameter
from ..proto.errors import SnapshotError
from .rules import Step, find
from .rules.base import Tensors


@dataclass(slots=True)
class Group:
    """Parameters with the same multipliers: one call of the rule updates them all.

    ``stored`` and ``stored_history`` are parameters and history as :func:`_as_stored` shows them.
    """

    lr_mult: float
    decay_mult: float
    indices: list[int] = field(default_factory=list)
    parameters: Tensors = field(default_factory=list)
    history: list[Tensors] = field(default_factory=list)
    stored: Tensors = field(default_factory=list)
    stored_history: list[Tensors] = field(default_factory=list)

    def settled(self) -> Group:
        """The group itself, once all its parameters are there."""
        self.stored = _as_stored(self.parameters)
        self.stored_history = [_as_stored(slot) for slot in self.history]
        return self


class Updater:
    """Holds the history of a solver and makes its updates.

    Args:
        params: the net's learnable parameters in Caffe's order; each has its place in the history.
        solver: rule and settings; already checked.

    ``history`` has one list per slot of the rule, each with a tensor per parameter in the layout of
    that parameter. Gradients are read from ``.grad``; one that is None counts as zero.
    """

    def __init__(self, params: Sequence[ParamRef], solver: SolverParameter) -> None:
        self.params = list(params)
        self.solver = solver
        self.rule = find(solver.type)
        self.parameters: Tensors = [param.tensor.detach() for param in self.params]
        self._sources: Tensors = [param.tensor for param in self.params]
        self._zeros: dict[int, Tensor] = {}
        self.history: list[Tensors] = [
            [torch.zeros_like(tensor) for tensor in self.parameters] for _ in range(self.rule.slots)
        ]
        #: L2 norm of the summed gradients of the last update, a 0-d tensor on the device, if
        #: gradients are clipped.
        self.norm: Tensor | None = None
        #: Set to keep, in :attr:`difference`, what each update subtracts from the weights.
        self.keep_difference = False
        self.difference: Tensors = []
        self._groups: list[Group] = []
        self.regroup()

    # -- groups ------------------------------------------------------------------------------------

    def regroup(self) -> None:
        """Sort the parameters into groups; again after multipliers or history were changed.

        Parameters that nothing can move (rate 0, nothing in their history, and no gradient or decay
        that would enter it) are left out.
        """
        groups: dict[tuple[float, float], Group] = {}
        for index, param in enumerate(self.params):
            if self._is_inert(index, param):
                continue
            key = (param.lr_mult, param.decay_mult)
            group = groups.setdefault(key, Group(*key, history=[[] for _ in self.history]))
            group.indices.append(index)
            group.parameters.append(self.parameters[index])
            for own, slot in zip(group.history, self.history, strict=True):
                own.append(slot[index])
        self._groups = [group.settled() for group in groups.values()]

    def _is_inert(self, index: int, param: ParamRef) -> bool:
        if param.lr_mult != 0 or any(slot[index].count_nonzero() for slot in self.history):
            return False
        if self.rule.ignores_zero_rate:
            return True
        return not param.tensor.requires_grad and self.solver.weight_decay * param.decay_mult == 0

    def moving(self) -> Tensors:
        """The parameters that updates may change from now on: those whose rate is not 0, and those
        that still coast."""
        return [
            self.parameters[index]
            for index, param in enumerate(self.params)
            if param.lr_mult != 0
            or (self.rule.coasts and any(slot[index].count_nonzero() for slot in self.history))
        ]

    # -- gradients ---------------------------------------------------------------------------------

    def clear_gradients(self) -> None:
        """Forget the gradients of the last iteration."""
        for tensor in self._sources:
            tensor.grad = None

    def keep_gradients(self) -> None:
        """Take memory of their own for the gradients, which a recorded CUDA graph has left in its
        own: its next run would write over them, not add."""
        for tensor in self._sources:
            if tensor.grad is not None:
                tensor.grad = tensor.grad.clone()

    def gradients(self) -> Tensors:
        """The gradients there are, of all parameters that have one."""
        return [tensor.grad for tensor in self._sources if tensor.grad is not None]

    def _group_gradients(self, group: Group) -> Tensors:
        found = [self._sources[index].grad for index in group.indices]
        return [
            self._zero(index) if gradient is None else _laid_out(gradient, self.parameters[index])
            for index, gradient in zip(group.indices, found, strict=True)
        ]

    def _zero(self, index: int) -> Tensor:
        """A zero gradient for a parameter that got none; rules may have scribbled into it."""
        if index not in self._zeros:
            self._zeros[index] = torch.zeros_like(self.parameters[index])
        return self._zeros[index].zero_()

    def _scale(self) -> Tensor | None:
        """What gradients are multiplied by for clipping and iter_size; stays on the device."""
        limit, passes = self.solver.clip_gradients, self.solver.iter_size
        self.norm = None
        if limit < 0 or not (gradients := self.gradients()):
            return self._constant(1 / passes) if passes > 1 else None
        self.norm = total_norm(gradients)
        scale = torch.where(self.norm > limit, limit / self.norm, 1.0)
        return scale / passes

    def _constant(self, value: float) -> Tensor:
        return torch.full((), value, device=self.parameters[0].device)

    def _refine(self, gradients: Tensors) -> None:
        """Clip each parameter's gradient by itself, and add noise, where the solver asks for it."""
        limit, noise = self.solver.clip_layer_gradients, self.solver.gradient_noise
        if limit >= 0:
            norms = torch.stack(torch._foreach_norm(gradients))
            torch._foreach_mul_(gradients, list((limit / norms).clamp(max=1.0).unbind()))
        if noise > 0:
            random = [torch.randn_like(gradient) for gradient in gradients]
            torch._foreach_add_(gradients, random, alpha=noise)

    # -- update ------------------------------------------------------------------------------------

    @contextmanager
    def in_backward(self, rate: Callable[[], float], iteration: int) -> Iterator[None]:
        """The time of backward, when gradients become known; ``rate`` is that of the update that
        follows ``iteration`` updates."""
        yield

    @torch.no_grad()
    def update(self, rate: float, iteration: int) -> None:
        """Make the update that follows ``iteration`` updates, at learning rate ``rate``."""
        if self.keep_difference:
            self.difference = [torch.zeros_like(tensor) for tensor in self.parameters]
        scale = self._scale()
        for group in self._groups:
            self._update_group(group, self._group_gradients(group), rate, iteration, scale)

    def _update_group(
        self,
        group: Group,
        gradients: Tensors,
        rate: float,
        iteration: int,
        scale: Tensor | None = None,
    ) -> None:
        solver, rule = self.solver, self.rule
        decay = solver.weight_decay * group.decay_mult
        by_rule = rule.prepares_gradient and solver.regularization_type == "L2"
        extras = solver.clip_layer_gradients >= 0 or solver.gradient_noise > 0
        if scale is not None and (extras or not rule.prepares_gradient):
            torch._foreach_mul_(gradients, scale)
            scale = None
        if extras:
            self._refine(gradients)
        if decay and not by_rule and not rule.decouples_decay:
            if scale is not None:
                torch._foreach_mul_(gradients, scale)
                scale = None
            self._regularize(group.parameters, gradients, decay)
            decay = 0.0
        step = Step(rate * group.lr_mult, decay, iteration + 1, solver, scale)
        if self.keep_difference:
            self._find_difference(group, gradients, step)
        rule(group.stored, _as_stored(gradients), group.stored_history, step)

    def _regularize(self, parameters: Tensors, gradients: Tensors, decay: float) -> None:
        """Add the gradient of the penalty: decay * w for L2, decay * sign(w) for L1."""
        if self.solver.regularization_type == "L1":
            parameters = list(torch._foreach_sign(parameters))
        torch._foreach_add_(gradients, parameters, alpha=decay)

    def _find_difference(self, group: Group, gradients: Tensors, step: Step) -> None:
        """What this update subtracts, from an update of copies in double precision: the difference
        of rounded weights would have few digits left."""
        before = [tensor.double() for tensor in group.parameters]
        after = [tensor.clone() for tensor in before]
        history = [[tensor.double() for tensor in slot] for slot in group.history]
        self.rule(after, [gradient.double() for gradient in gradients], history, step)
        for index, old, new in zip(group.indices, before, after, strict=True):
            self.difference[index] = (old - new).to(self.parameters[index].dtype)

    # -- snapshots ---------------------------------------------------------------------------------

    def history_list(self) -> Tensors:
        """The history blobs in a snapshot's order: slot after slot, parameters within."""
        return [tensor for slot in self.history for tensor in slot]

    def check_history(self, shapes: Sequence[Sequence[int]], origin: str) -> None:
        """SnapshotError if blobs of these shapes are not this solver's history."""
        own = self.history_list()
        if len(shapes) != len(own):
            raise SnapshotError(
                f"{origin}: holds {len(shapes)} history blobs, but solver type {self.solver.type} "
                f"with {len(self.params)} parameters needs {len(own)}; was it written by another "
                "solver type or net?"
            )
        for index, (target, shape) in enumerate(zip(own, shapes, strict=True)):
            if target.numel() != math.prod(shape):
                name = self.params[index % len(self.params)].name
                raise SnapshotError(
                    f"{origin}: history blob {index} ({name}) has shape {list(shape)}, "
                    f"but the net needs {list(target.shape)}"
                )

    @torch.no_grad()
    def load_history(self, blobs: Sequence[Tensor]) -> None:
        """Take the history from a snapshot's blobs, which were checked."""
        for target, source in zip(self.history_list(), blobs, strict=True):
            target.copy_(source.view(target.shape))
        self.regroup()


def total_norm(tensors: Tensors) -> Tensor:
    """The L2 norm of all elements of all ``tensors`` together, a 0-d tensor."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """``gradient`` in the layout of ``parameter``, which torch's fused kernels take for granted."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _as_stored(tensors: Tensors) -> Tensors:
    """Views with the axes in the order of memory: torch's fused kernels copy what is channels-last.

    For a rule, which sees every element alone or all of a tensor, their order does not matter.
    """
    return [
        tensor.permute(0, 2, 3, 1)
        if tensor.dim() == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
        else tensor
        for tensor in tensors
    ]
