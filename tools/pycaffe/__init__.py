"""Caffe's Python interface: ``from cortado.tools import pycaffe as caffe``.

Nets, solvers, net specifications and ``caffe.io`` under the names that scripts use; unchanged
scripts that say ``import caffe`` run with ``python -m cortado.tools.pycaffe script.py``.
"""

from __future__ import annotations

from ...layers.base import TEST, TRAIN
from ...layers.python import PythonLayer as Layer
from ...layers.registry import layer_types
from . import classifier, coord_map, detector, draw, io, net_spec, proto
from .classifier import Classifier
from .detector import Detector
from .mode import (
    init_log,
    log,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from .net import Net
from .net_spec import BlockSpec, NetSpec, layers, params, to_proto
from .parallel import NCCL, has_nccl
from .short_form import Verbatim, required
from .solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from .timer import Timer

#: The version of Caffe whose interface this is.
__version__ = "1.0.0"

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "BlockSpec",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "Verbatim",
    "classifier",
    "coord_map",
    "detector",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "required",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]  # fmt: skip


def layer_type_list() -> list[str]:
    """The names of all layer types."""
    return list(layer_types())
