"""Updates in backward: each parameter's as soon as its gradient is known, which then is freed.

A step needs no memory for all gradients at once, and for the weights of large inner products none
at all: their gradient is computed and used some rows at a time, while the caches hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ..netdef import Net, ParamRef, inner_products
from ..proto.caffe_pb2 import SolverParameter
from ..proto.errors import ConfigError, Fault
from .scaling import LossScaler
from .update import Group, Updater

#: Numbers of a gradient that are computed and used at a time.
_PART = 1 << 20


def updater_for(net: Net, solver: SolverParameter, scaler: LossScaler | None) -> Updater:
    """The updater that ``solver`` asks for; ConfigError if this run cannot have it."""
    if not solver.update_in_backward:
        return Updater(net.params, solver)
    if scaler is not None:
        raise ConfigError(Fault("update_in_backward does not go with the scaled loss of FP16"))
    if solver.check_finite and net.device.type != "cpu":
        raise ConfigError(
            Fault(
                "update_in_backward needs check_finite: false on a GPU, where the answer comes "
                "after the update"
            )
        )
    updater = EarlyUpdater(net.params, solver)
    updater.take_products(net)
    return updater


class EarlyUpdater(Updater):
    """An updater that is at work in backward.

    After a gradient that is not finite (with check_finite) nothing more is updated in that pass,
    and the gradients from there on are left for whoever looks at them.
    """

    def __init__(self, params: Sequence[ParamRef], solver: SolverParameter) -> None:
        self._alone: dict[int, Group] = {}
        super().__init__(params, solver)
        self._updated: set[int] = set()
        self._at_work = False
        self._rate, self._iteration = 0.0, 0
        for index, tensor in enumerate(self._sources):
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(partial(self._take, index))

    def regroup(self) -> None:
        super().regroup()
        self._alone = {
            index: Group(
                group.lr_mult,
                group.decay_mult,
                [index],
                [self.parameters[index]],
                [[slot[index]] for slot in self.history],
            ).settled()
            for group in self._groups
            for index in group.indices
        }

    def take_products(self, net: Net) -> None:
        """Have the factors of the weights' gradients from inner products that share them with no
        other layer."""
        if not self.rule.elementwise or self.solver.clip_layer_gradients >= 0:
            return
        places = {id(tensor): index for index, tensor in enumerate(self._sources)}
        for weight, layer in inner_products.unshared(net):
            layer.taker = partial(self._take_product, places[id(weight)])

    @contextmanager
    def in_backward(self, rate: Callable[[], float], iteration: int) -> Iterator[None]:
        self._rate, self._iteration, self._at_work = rate(), iteration, True
        self._updated.clear()
        try:
            yield
        finally:
            self._at_work = False

    @torch.no_grad()
    def _take(self, index: int, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None or not self._may_use(gradient):
            return
        if index in self._alone:
            group = self._alone[index]
            self._update_group(group, self._group_gradients(group), self._rate, self._iteration)
        self._updated.add(index)
        parameter.grad = None

    @torch.no_grad()
    def _take_product(self, index: int, grad: Tensor, rows: Tensor) -> bool:
        """The update by the product of these factors, some rows of the weights at a time."""
        if not self._at_work:
            return False
        if index not in self._alone:
            return True
        whole, count = self._alone[index], max(1, _PART // rows.shape[1])
        room = rows.new_empty(min(count, grad.shape[1]), rows.shape[1])
        is_safe = not self.solver.check_finite or inner_products.surely_finite(grad, rows)
        for first in range(0, grad.shape[1], count):
            part = slice(first, first + count)
            left = grad[:, part].t()
            gradient = torch.mm(left, rows, out=room[: left.shape[0]])
            if not is_safe and not self._may_use(gradient):
                return False
            history = [[slot[0][part]] for slot in whole.history]
            group = Group(
                whole.lr_mult, whole.decay_mult, [index], [whole.parameters[0][part]], history
            )
            self._update_group(group.settled(), [gradient], self._rate, self._iteration)
        self._updated.add(index)
        return True

    def _may_use(self, gradient: Tensor) -> bool:
        if self._at_work and self.solver.check_finite:
            # A sum of large values may overflow where none of them is infinite.
            is_finite = math.isfinite(float(gradient.sum())) or bool(gradient.isfinite().all())
            self._at_work = is_finite
        return self._at_work

    @torch.no_grad()
    def update(self, rate: float, iteration: int) -> None:
        """Update what had no gradient in backward, and count nothing twice."""
        for index, group in self._alone.items():
            if index not in self._updated:
                self._update_group(group, self._group_gradients(group), rate, iteration)
        self._updated.clear()
