"""Which hooks a solver's fields ask for, in the order in which they act."""

from __future__ import annotations

from ...proto.caffe_pb2 import SolverParameter
from .base import Hook
from .display import Display
from .signals import Signals
from .snapshots import Snapshots
from .testing import Testing


def standard_hooks(parameters: SolverParameter, sigint: str, sighup: str) -> list[Hook]:
    """The hooks of a run. Signals come before snapshots, which write what a signal asked for; at
    the end the order is that of Caffe's last lines: snapshot, loss, tests."""
    return [
        Signals(sigint, sighup),
        Snapshots(parameters),
        Display(parameters.display, parameters.average_loss),
        Testing(parameters.test_interval, parameters.test_initialization),
    ]
