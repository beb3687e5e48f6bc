"""Runs with a frozen trunk, for the tests of cached features."""

from __future__ import annotations

from pathlib import Path

import torch

from cortado.solvers import Solver, events, fine_tuning
from cortado.solvers.hooks import Hook
from support.runs import everything, solver_document

RECORDS = 13
TRUNK = """
  layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
  layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm"
    batch_norm_param { eps: 1 } }
  layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
  layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
  layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool"
    pooling_param { pool: AVE global_pooling: true } }
"""
HEAD = """
  layer { name: "drop" type: "Dropout" bottom: "pool" top: "drop" }
  layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "o"
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "accuracy" type: "Accuracy" bottom: "o" bottom: "label" top: "accuracy"
    include { phase: TEST } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "o" bottom: "label" top: "loss" }
"""
FROZEN = ["conv", "norm", "scale"]


def solver_for(
    folder: Path,
    data: str,
    text: str = "",
    cached: bool = True,
    frozen: list[str] = FROZEN,
    middle: str = TRUNK + HEAD,
    device: str = "cpu",
) -> Solver:
    folder.mkdir(exist_ok=True)
    if cached:
        text += f' cache_features: true feature_cache: "{folder.parent}/features"'
    net = f'name: "images" {data} {middle}'
    document = fine_tuning.frozen(solver_document(folder, text, net), frozen)
    return Solver(document, device=device)


class Keys(Hook):
    """Notes the records of every iteration."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def after_update(self, solver, iteration) -> None:
        sources = [step.source for step in solver.net.sources]
        self.seen.append(tuple(key for source in sources for key in source.last_keys))


def trained(solver: Solver) -> tuple[list[tuple[str, ...]], list[torch.Tensor], list[float]]:
    """The records, the weights and history, and the test results of a whole run."""
    keys, tests = Keys(), []
    solver.hooks.append(keys)
    solver.listeners.append(
        lambda event: (
            tests.extend(o.value for o in event.outputs)
            if isinstance(event, events.TestFinished)
            else None
        )
    )
    with solver:
        solver.solve()
        return keys.seen, everything(solver), tests
