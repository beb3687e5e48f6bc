"""No layer waits for its device, and none mixes devices: shown without a GPU.

The layers run on fake tensors, which have shapes and a device but no values: whatever asks for a
value fails. Whole iterations of training are in tests/solvers/test_no_waiting.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cortado.layers.base import Layer
from support.fake_device import DEVICE, WAITED, NoCopies
from support.goldens import as_tuple, enter_case_folder
from support.layer_case import LayerCase
from support.layer_cases import CASES

#: Layers that say in their docstring what is done on the host.
WAITING = {"CTCLoss", "Filter", "HDF5Output", "Python"}


@pytest.fixture(autouse=True)
def _case_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_case_folder(tmp_path, monkeypatch)


def run(layer: Layer, bottoms: Sequence[Tensor], graded: int | None) -> None:
    """Forward and backward, without values."""
    with NoCopies():
        tops = [top for top in as_tuple(layer(*bottoms))[:graded] if top.requires_grad]
        wanted = [x for x in (*bottoms, *layer.parameters()) if x.requires_grad]
        if tops:
            towards = [torch.ones_like(top) for top in tops]
            torch.autograd.grad(tops, wanted, towards, allow_unused=True)


def prepared(case: LayerCase) -> tuple[Layer, list[Tensor]]:
    layer = case.build()
    layer.materialize(DEVICE)
    for name, buffer in layer.named_buffers():  # parameters that are fake cannot be moved
        setattr(layer, name, buffer.to(DEVICE))
    skip = dict(case.labels)
    bottoms = [
        torch.empty(shape, device=DEVICE, requires_grad=index not in skip)
        for index, shape in enumerate(case.bottoms)
    ]
    return layer, bottoms


@pytest.mark.parametrize("case", [case for case in CASES if case.type not in WAITING], ids=str)
def test_no_value_is_asked_for(case: LayerCase) -> None:
    with FakeTensorMode():
        layer, bottoms = prepared(case)
        run(layer, bottoms, case.graded)
        run(layer, bottoms, case.graded)  # the state of the first is carried over


@pytest.mark.parametrize("kind", sorted(WAITING))
def test_those_that_wait_are_found_and_say_so(kind: str) -> None:
    case = next(case for case in CASES if case.type == kind)
    with FakeTensorMode():
        layer, bottoms = prepared(case)
        with pytest.raises(WAITED):
            run(layer, bottoms, case.graded)
    assert layer.__doc__ is not None
    assert "host" in layer.__doc__


class Waits(Layer):
    """Asks for a value in each of the ways that there are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        match self.way:
            case "number":
                return x * x.max().item()
            case "condition":
                return x if bool((x > 0).all()) else -x
            case "mask":
                return x[x > 0]
            case "host":
                return x.cpu().to(DEVICE)
            case "constant":
                return x + torch.tensor([1.0, 2.0]).to(DEVICE)
            case _:
                return x + torch.ones(2)


@pytest.mark.parametrize("way", ["number", "condition", "mask", "host", "constant", "mixed"])
def test_the_check_finds_every_way_of_waiting(way: str) -> None:
    with FakeTensorMode(), pytest.raises(WAITED):
        run(Waits(way), [torch.empty(3, 2, device=DEVICE)], None)
