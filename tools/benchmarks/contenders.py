"""What is raced: our solver and net, and the same net in plain or tuned torch."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.dropout import Dropout
from ...layers.source import DataSource
from ...netdef import Net
from ...netdef.execution import Execution, prepared_process
from ...proto import caffe_pb2
from ...proto.files import read_net
from ...proto.positions import Document
from ...solvers import Solver, loop
from ...solvers.hooks.signals import Signals
from . import nets, peers, twin

RATE, MOMENTUM, DECAY = 1e-4, 0.9, 5e-4
DTYPES = {"BF16": torch.bfloat16, "FP16": torch.float16}


@dataclass(frozen=True, slots=True)
class Course:
    """What all contenders run: a net by name or path, its batch, the pass, device and precision."""

    net: str
    batch: int = 0
    training: bool = True
    device: str = "cpu"
    precision: str = "FP32"
    settings: tuple[tuple[str, Any], ...] = ()

    def document(self) -> Document[caffe_pb2.NetParameter]:
        if Path(self.net).is_file():
            return read_net(self.net)
        return Document(nets.definition(self.net, self.batch, self.training))

    @property
    def phase(self) -> str:
        return "TRAIN" if self.training else "TEST"


class Fixed(DataSource):
    """A source that hands out one batch again and again."""

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = tensors
        self.shapes = tuple(tuple(each.shape) for each in tensors)

    def next(self, device: torch.device) -> tuple[Tensor, ...]:
        return self.tensors


def _fix_sources(net: Net, device: str) -> None:
    """Let every source hand out the same batch again and again."""
    batch = nets.fixed_batch(net)
    for step in net.sources:
        step.source = Fixed(tuple(batch[name].to(device) for name in step.tops))


def autocast(course: Course, tuned: bool) -> Any:
    """What a tuned loop runs under, for the precision of the course."""
    if not tuned or course.precision not in DTYPES:
        return contextlib.nullcontext
    kind, dtype = torch.device(course.device).type, DTYPES[course.precision]
    return lambda: torch.autocast(kind, dtype)


def _choose_kernels(course: Course, tuned: bool) -> None:
    """On a GPU, for good: where the course says FP32 or TF32 all products are of that, otherwise a
    loop has torch's defaults; and a tuned one lets cuDNN look for its fastest kernels, as ours."""
    device = torch.device(course.device)
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = tuned
    if course.precision in ("FP32", "TF32"):
        with Execution(precision=course.precision).context(device):
            pass


class Ours:
    """The solver's own loop, with its hooks and events; or a pass of the net as `test` makes it."""

    def __init__(self, course: Course) -> None:
        # For good: each contender has a process of its own.
        self._settings = ExitStack()
        self._settings.enter_context(prepared_process(course.device))
        torch.manual_seed(1)
        document = course.document()
        self.solver: Solver | None = None
        if course.training:
            solver = caffe_pb2.SolverParameter(
                net_param=document.message,
                base_lr=RATE,
                lr_policy="fixed",
                momentum=MOMENTUM,
                weight_decay=DECAY,
                max_iter=2**31 - 1,
                random_seed=1,
                **dict(course.settings),
            )
            self.solver = Solver(solver, device=course.device)
            self.net = self.solver.net
            for hook in self.solver.hooks:
                if not isinstance(hook, Signals):  # a worker ends when it is told to
                    hook.before_train(self.solver)
        else:
            execution = Execution(**dict(course.settings))
            net = Net(document, "TEST", device=course.device, execution=execution)
            self.net = nets.ready(net)
            self.net.fold()
        _fix_sources(self.net, course.device)
        self.batch = self.net.next_batch()

    def run(self, count: int) -> None:
        if self.solver is not None:
            loop.run(self.solver, self.solver.iteration + count)
            return
        with torch.inference_mode():
            for _ in range(count):
                self.net.run(self.batch)

    def loss(self) -> float:
        """The loss of the first batch without dropout, or what tells its first output apart."""
        active = [step.layer for step in self.net.steps if isinstance(step.layer, Dropout)]
        for layer in active:
            layer.dropout_ratio, layer.kept = 0.0, layer.dropout_ratio  # type: ignore[assignment]
        # A compiler would make other code for passes without gradients, which takes long.
        self.net.literal = self.solver is not None and self.net.execution.compile
        with torch.no_grad():
            outputs, loss = self.net.run(self.batch)
        self.net.literal = False
        for layer in active:
            layer.dropout_ratio = layer.kept  # type: ignore[assignment]
        if self.net.loss_weights:
            return float(loss)
        return nets.fingerprint(outputs[self.net.outputs[0]].cpu())

    def macs(self) -> int:
        """Multiply-accumulate operations of one forward pass over the batch."""
        return sum(step.layer.macs(step.bottom_shapes, step.top_shapes) for step in self.net.steps)


class Torch:
    """The twin in a loop as users write it; ``tuned``: channels-last and the fused optimiser."""

    def __init__(self, course: Course, tuned: bool, compiled: bool = False) -> None:
        torch.manual_seed(1)
        net = Net(course.document(), course.phase)
        if not course.training:
            nets.ready(net)
        _fix_sources(net, "cpu")
        batch = net.next_batch()
        self.training = course.training
        self.model: nn.Module = twin.build(net).to(course.device).train(course.training)
        del net
        self.inputs = [
            (each if each.dim() > 1 else each.long()).to(course.device) for each in batch.values()
        ]
        if tuned:
            self.model.to(memory_format=torch.channels_last)
            self.inputs = [
                each.contiguous(memory_format=torch.channels_last) if each.dim() == 4 else each
                for each in self.inputs
            ]
        self.autocast = autocast(course, tuned)
        _choose_kernels(course, tuned)
        self.eager = self.model
        if compiled:
            self.model = torch.compile(self.model)  # type: ignore[assignment]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, fused=tuned or None
        )

    def run(self, count: int) -> None:
        if not self.training:
            with torch.inference_mode(), self.autocast():
                for _ in range(count):
                    self.model(*self.inputs)
            return
        for _ in range(count):
            self.optimizer.zero_grad()
            with self.autocast():
                loss = self.model(*self.inputs)
            loss.backward()
            self.optimizer.step()

    def loss(self) -> float:
        drops = [each for each in self.model.modules() if isinstance(each, nn.Dropout)]
        rates = [each.p for each in drops]
        for each in drops:
            each.p = 0.0
        with torch.no_grad(), self.autocast():
            found = self.eager(*self.inputs)
        for each, rate in zip(drops, rates, strict=True):
            each.p = rate
        return nets.fingerprint(found.cpu()) if found.dim() else float(found)


def enter(name: str, course: Course) -> Ours | Torch | peers.Torchvision | peers.OpenCV:
    """The contender called ``name``: ours, plain, tuned, tuned-compiled or a peer."""
    if name == "ours":
        return Ours(course)
    if name == "opencv":
        return peers.OpenCV(course)
    if name in peers.PEERS:
        return peers.Torchvision(course, tuned=name != "torchvision")
    return Torch(course, tuned=name != "plain", compiled=name == "tuned-compiled")
