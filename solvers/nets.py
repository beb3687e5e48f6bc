"""Which nets a solver names, and the state (phase, level, stages) each of them is built for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..layers.imports import import_named
from ..netdef import Net
from ..netdef.execution import Execution
from ..proto.caffe_pb2 import TEST, TRAIN, NetParameter, NetState
from ..proto.errors import ConfigError, Fault
from ..proto.files import read_net
from ..proto.positions import Document
from .requirements import SolverDocument, place

_TRAIN_FIELDS = ("train_net_param", "train_net", "net_param", "net")


@dataclass(frozen=True, slots=True)
class NetDefinition:
    """One net of a solver: the field that names it, its path (if any), definition and state."""

    origin: str
    source: str
    document: Document[NetParameter]
    state: NetState

    def build(
        self,
        device: str,
        share_with: Net | None = None,
        execution: Execution | None = None,
    ) -> Net:
        return Net(
            self.document,
            self.state.phase,
            level=self.state.level,
            stages=self.state.stage,
            device=device,
            share_with=share_with,
            execution=execution,
        )


def check(document: SolverDocument) -> Iterator[Fault]:
    """What is wrong with how the solver names its nets and tests."""
    solver = document.message
    named = [name for name in _TRAIN_FIELDS if solver.HasField(name)]
    if not named:
        yield Fault(
            "the solver names no net to train: give one of net, net_param, train_net, "
            "train_net_param",
            place(document),
        )
    elif len(named) > 1:
        yield Fault(
            f"the solver names {len(named)} nets to train ({', '.join(named)}): keep one",
            place(document, named[1]),
        )
    generic = solver.HasField("net") or solver.HasField("net_param")
    specific = len(solver.test_net) + len(solver.test_net_param)
    tests = len(solver.test_iter)
    if tests < specific or (tests > specific and not generic):
        yield Fault(
            f"test_iter must be given once for each test net: got {tests} for {specific}",
            place(document, "test_iter"),
        )
    if solver.test_state and len(solver.test_state) != tests:
        yield Fault(
            f"test_state must be absent or given once for each of the {tests} test nets, "
            f"got {len(solver.test_state)}",
            place(document, "test_state"),
        )
    if tests and solver.test_interval <= 0 and not solver.HasField("test_epoch"):
        yield Fault(
            f"test_interval must be greater than 0 where test_iter is given, "
            f"got {solver.test_interval}",
            place(document, "test_interval" if solver.HasField("test_interval") else "test_iter"),
        )


def train_definition(
    document: SolverDocument, level: int = 0, stages: Sequence[str] = ()
) -> NetDefinition:
    """The net to train; ``level`` and ``stages`` (of the command line) join its train_state."""
    solver = document.message
    extra = NetState(stage=stages)
    if level:
        extra.level = level
    origin = next(name for name in _TRAIN_FIELDS if solver.HasField(name))
    return _definition(document, origin, 0, TRAIN, [solver.train_state, extra])


def test_definitions(document: SolverDocument) -> list[NetDefinition]:
    """The test nets in Caffe's order: test_net_param, test_net, then the general net as often as
    there are test_iter left."""
    solver = document.message
    named = [("test_net_param", index) for index in range(len(solver.test_net_param))]
    named += [("test_net", index) for index in range(len(solver.test_net))]
    general = "net_param" if solver.HasField("net_param") else "net"
    named += [(general, 0)] * (len(solver.test_iter) - len(named))
    return [
        _definition(document, origin, index, TEST, solver.test_state[number : number + 1])
        for number, (origin, index) in enumerate(named)
    ]


def _definition(
    document: SolverDocument, origin: str, index: int, phase: int, states: Sequence[NetState]
) -> NetDefinition:
    import_named(document)
    solver = document.message
    value = getattr(solver, origin)
    if not isinstance(value, str | NetParameter):
        value = value[index]
    if isinstance(value, str):
        source = value
        net = _read(document, origin, index, value)
    else:
        source = ""
        nodes = document.root.children(origin) if document.root else []
        net = Document(value, nodes[index] if index < len(nodes) else None)
    state = NetState()
    state.phase = phase  # type: ignore[assignment]  # the stubs know the enum, Net plain numbers
    for each in (net.message.state, *states):
        state.MergeFrom(each)
    return NetDefinition(origin, source, net, state)


def _read(document: SolverDocument, origin: str, index: int, path: str) -> Document[NetParameter]:
    """Read a net's file; a file that cannot be opened is a fault of the solver's line."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError(
            Fault(f"{origin}: {path}: {reason}", place(document, f"{origin}.{index}"))
        ) from None
    return read_net(path, document.variables)
