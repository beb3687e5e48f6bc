"""Small training runs for the tests of snapshots and resuming."""

from __future__ import annotations

from pathlib import Path

import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.positions import Document
from cortado.proto.text import parse
from cortado.solvers import Solver
from cortado.solvers.hooks import Hook

#: Random data in both phases, dropout, and a parameter that is shared.
NET = """
name: "small"
layer { name: "in" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 4 dim: 6 } shape { dim: 4 dim: 3 }
    data_filler { type: "gaussian" } data_filler { type: "uniform" } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "h"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }
layer { name: "act" type: "TanH" bottom: "h" top: "h" }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "o"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "o" bottom: "label" top: "loss" }
"""


DEFAULTS = {
    "base_lr": "0.05",
    "lr_policy": '"fixed"',
    "max_iter": "8",
    "random_seed": "3",
    "solver_mode": "CPU",
}


def solver_document(folder: Path, text: str, net: str = NET) -> Document[SolverParameter]:
    """A solver for ``net`` with the fields in ``text`` and DEFAULTS; its prefix is ``folder``/run.

    A field that ``text`` gives, or an alternative to it, takes the place of its default.
    """
    given = {part.rstrip(":") for part in text.split() if part.endswith(":")}
    if "max_epoch" in given:
        given.add("max_iter")
    fields = [f"{name}: {value}" for name, value in DEFAULTS.items() if name not in given]
    fields += [f"net_param {{ {net} }}", f'snapshot_prefix: "{folder}/run"', text]
    return parse("\n".join(fields), SolverParameter, "solver.prototxt")


def small_solver(folder: Path, text: str = "", net: str = NET, **arguments) -> Solver:
    return Solver(solver_document(folder, text, net), device="cpu", **arguments)


def everything(solver: Solver) -> list[torch.Tensor]:
    """Copies of all weights and the whole history."""
    weights = [param.tensor.detach().clone() for param in solver.net.params]
    return weights + [tensor.clone() for tensor in solver.updater.history_list()]


def identical(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


class Call(Hook):
    """Does something after the update that completes an iteration."""

    def __init__(self, at: int, work) -> None:
        self.at, self.work = at, work

    def after_update(self, solver, iteration) -> None:
        if solver.iteration == self.at:
            self.work()


class Recorder(Hook):
    """Keeps the weights after every update."""

    def __init__(self, weights: list[list[torch.Tensor]]) -> None:
        self.weights = weights

    def after_update(self, solver, iteration) -> None:
        self.weights.append([param.tensor.detach().clone() for param in solver.net.params])
