"""Which hooks a solver's fields ask for, in the order in which they act."""

from __future__ import annotations

from ...netdef import Net
from ...proto.caffe_pb2 import SolverParameter
from .averaging import Averaging
from .base import Hook
from .debug import Debug
from .display import Display
from .features import CachedFeatures
from .finite import Finite
from .signals import Signals
from .snapshots import Snapshots
from .tensorboard import TensorBoard
from .testing import Testing
from .watching import Watching


def standard_hooks(parameters: SolverParameter, net: Net, sigint: str, sighup: str) -> list[Hook]:
    """The hooks of a run. Signals come before snapshots, which write what a signal asked for; at
    the end the order is that of Caffe's last lines: snapshot, loss, tests. Averages are updated
    before a snapshot saves them."""
    saver = Snapshots(parameters, net.device)
    hooks: list[Hook] = [Signals(sigint, sighup)]
    if parameters.ema_decay:
        hooks.append(Averaging(net, parameters.ema_decay))
    display = Display(parameters.display, parameters.average_loss)
    if parameters.debug_info:
        hooks.append(Debug(display))
    hooks.append(saver)
    if parameters.cache_features:
        hooks.append(CachedFeatures(parameters))
    hooks += [display, Testing(parameters.test_interval, parameters.test_initialization)]
    if parameters.watch:
        hooks.append(Watching(parameters, saver))
    if parameters.check_finite:
        hooks.append(Finite(deferred=net.device.type != "cpu"))
    if parameters.tensorboard.folder:
        hooks.append(TensorBoard(parameters.tensorboard))
    return hooks
