"""Caffe's solvers in Python, standing on :class:`cortado.solvers.Solver`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...proto.caffe_pb2 import SolverParameter
from ...proto.files import read_solver
from ...solvers import diagnosis, loop
from ...solvers.hooks import Hook
from ...solvers.hooks.signals import Signals
from ...solvers.hooks.snapshots import Snapshots
from ...solvers.solver import Solver as Training
from ..output import log
from . import mode, modules
from .errors import caffe_errors, check_file
from .net import Net
from .parallel import NCCL


class _Training(Training):
    """A training run whose nets run through the facade, layer by layer, so that scripts find every
    blob's data and diff after a step."""

    facade: Net
    test_facades: list[Net]

    def clear_gradients(self) -> None:
        self.facade.clear_param_diffs()

    def make_pass(self, index: int) -> loop.Pass:
        net, last = self.facade, len(self.facade.layers) - 1
        generators = diagnosis.generator_states(self.device)
        loss = _sum(net._run(0, last), self.device)
        net._backward(last, 0)
        batch = {
            name: net.blobs[name].values.tensor for step in self.net.sources for name in step.tops
        }
        keys = tuple(key for step in self.net.sources for key in step.source.last_keys)
        evidence = diagnosis.Evidence(batch, generators, keys)
        return loop.Pass(self.iteration, index, loss, _outputs(net), evidence)

    def test_batch(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        net = self.test_facades[index]
        terms = net._run(0, len(net.layers) - 1)
        return _outputs(net), _sum(terms, net.module.device)


def _sum(terms: list[Tensor], device: torch.device) -> Tensor:
    return torch.stack(terms).sum() if terms else torch.zeros((), device=device)


def _outputs(net: Net) -> dict[str, Tensor]:
    """The outputs, each in memory of its own: the next pass may reuse the blob's."""
    return {name: net.blobs[name].values.tensor.clone() for name in net.outputs}


class _Callbacks(Hook):
    """What ``add_callback`` registered, at Caffe's two moments of an iteration."""

    def __init__(self) -> None:
        self.on_start: list[Callable[[], object]] = []
        self.on_gradients_ready: list[Callable[[], object]] = []

    def before_step(self, solver: Training) -> None:
        if solver.stopped_by is None:
            for callback in self.on_start:
                callback()

    def after_backward(self, solver: Training, iteration: loop.Iteration) -> None:
        for callback in self.on_gradients_ready:
            callback()


class Solver:
    """A solver from a prototxt file; the subclasses choose the rule whatever the file says.

    It runs where :func:`set_mode_cpu` and :func:`set_mode_gpu` say when it is made. Its log lines
    go to standard error as Caffe's do. RuntimeError for what Caffe would refuse.
    """

    _type = ""

    def __init__(
        self,
        solver_file: str | os.PathLike[str],
        variables: Mapping[str, object] | None = None,
    ) -> None:
        modules.offer_caffe()
        mode.ensure_log()
        path = check_file(solver_file)
        with caffe_errors():
            document = read_solver(path, variables)
            if self._type:
                document.message.type = self._type
            if document.message.random_seed < 0:
                document.message.random_seed = mode.derived_seed()
            self._training = _Training(document, device=mode.device(), listeners=[log.write])
        training = self._training
        if training.scaler is not None:
            raise RuntimeError(
                "precision FP16 scales gradients, which passes of a script's own would not; "
                "take BF16, or train with cortado train"
            )
        # Signals are the script's own business.
        training.hooks = [hook for hook in training.hooks if not isinstance(hook, Signals)]
        self._callbacks = _Callbacks()
        training.hooks.append(self._callbacks)
        self._net = training.facade = Net.over(training.net)
        self._test_nets = training.test_facades = [Net.over(net) for net in training.test_nets]
        nets = [self._net, *self._test_nets]
        for net in nets:
            net._partners = [other for other in nets if other is not net]

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self._net

    @property
    def test_nets(self) -> list[Net]:
        """The test nets; their parameters are those of :attr:`net`."""
        return self._test_nets

    @property
    def iter(self) -> int:
        """How many updates were made."""
        return self._training.iteration

    @property
    def param(self) -> SolverParameter:
        """The solver's message; ``base_lr`` can be changed while training."""
        return self._training.parameters

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._training.rate

    def step(self, iterations: int) -> None:
        """Make so many iterations, with the tests and snapshots that fall due."""
        with caffe_errors():
            self._training.step(int(iterations))

    def solve(self, resume_file: str | os.PathLike[str] | None = None) -> None:
        """Train to max_iter, from a .solverstate if one is given."""
        resume = None if resume_file is None else check_file(resume_file)
        with caffe_errors():
            self._training.solve(resume, accept_changes=True)

    def restore(self, state_file: str | os.PathLike[str]) -> None:
        """Continue from a .solverstate."""
        path = check_file(state_file)
        with caffe_errors():
            self._training.restore(path, accept_changes=True)

    def snapshot(self) -> None:
        """Write weights and state now; the files are there on return."""
        with caffe_errors():
            for hook in self._training.hooks:
                if isinstance(hook, Snapshots):
                    hook.write(self._training)
                    hook.close(self._training)

    def apply_update(self) -> None:
        """Update the parameters from their diffs, and count the iteration."""
        training = self._training
        self._net._synchronize()
        with caffe_errors():
            loop.apply_update(training)

    def add_callback(
        self,
        on_start: Callable[[], object] | NCCL,
        on_gradients_ready: Callable[[], object] | None = None,
    ) -> None:
        """Call ``on_start()`` when an iteration starts, ``on_gradients_ready()`` before its update.

        An :class:`NCCL` in their place does nothing.
        """
        if isinstance(on_start, NCCL):
            return
        self._callbacks.on_start.append(on_start)
        if on_gradients_ready is not None:
            self._callbacks.on_gradients_ready.append(on_gradients_ready)

    def share_weights(self, net: Net) -> None:
        """Let ``net`` use the parameters of this solver's net."""
        net.share_with(self._net)


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    _type = "SGD"


class NesterovSolver(SGDSolver):
    """Nesterov's accelerated gradient."""

    _type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """AdaGrad."""

    _type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """RMSProp."""

    _type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """AdaDelta."""

    _type = "AdaDelta"


class AdamSolver(SGDSolver):
    """Adam."""

    _type = "Adam"


def get_solver(
    solver_file: str | os.PathLike[str], variables: Mapping[str, object] | None = None
) -> Solver:
    """The solver of the type that the file names; SGD if it names none.

    ``variables`` are values for variables of the file or of its nets.
    """
    with caffe_errors():
        name = read_solver(check_file(solver_file), variables).message.type
    known: list[type[Solver]] = [SGDSolver, *SGDSolver.__subclasses__()]
    for cls in known:
        if cls._type == name:
            return cls(solver_file, variables)
    return Solver(solver_file, variables)  # a rule that Caffe has not
