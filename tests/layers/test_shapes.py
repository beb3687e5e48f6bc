"""Layers know the shapes of their tops, and refuse what cannot work, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cortado.layers.base import Layer, Shape
from cortado.proto.errors import LayerError
from support.goldens import as_tuple, enter_case_folder
from support.layer_case import LayerCase
from support.shape_cases import SHAPE_CASES

every_case = pytest.mark.parametrize("case", SHAPE_CASES, ids=str)


@pytest.fixture(autouse=True)
def _case_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_case_folder(tmp_path, monkeypatch)


def meta(shapes: Sequence[Shape]) -> list[Tensor]:
    return [torch.empty(shape, device="meta") for shape in shapes]


@every_case
def test_inferred_shapes_are_the_real_ones(case: LayerCase) -> None:
    inferred = case.build().infer(meta(case.bottoms))
    inputs = case.inputs()
    if case.type == "Filter":  # the number of chosen items is known with the data only
        inputs[-1] = torch.ones_like(inputs[-1])
    real = as_tuple(case.ready()(*inputs))
    assert len(real) == case.tops
    assert [top.shape for top in inferred] == [top.shape for top in real]


@every_case
def test_shapes_are_known_without_forward(case: LayerCase) -> None:
    """All types but Python, whose shapes only ``reshape`` of the user's class knows: it is called
    instead of forward, and nothing is computed either."""
    stated = case.build().top_shapes(*case.bottoms)
    if case.type == "Python":
        assert stated is None
    else:
        assert stated is not None
        assert all(isinstance(shape, tuple) for shape in stated)


def changed(shapes: tuple[Shape, ...]) -> Iterator[tuple[Shape, ...]]:
    """Other bottoms: single axes, or the same of all, with other sizes, removed or added."""
    for replacements in ((1,), (2,), (3,), (4,), (12,), (), (1, 2), (2, 1)):
        for axis in range(max(map(len, shapes), default=0)):
            each = [(*s[:axis], *replacements, *s[axis + 1 :]) for s in shapes]
            yield tuple(each)
            for index, shape in enumerate(each):
                yield (*shapes[:index], shape, *shapes[index + 1 :])
    yield ((),) * len(shapes)


def outcome(
    case: LayerCase, run: Callable[[Layer, list[Tensor]], Sequence[Tensor]]
) -> list[Shape] | Exception:
    """Shapes of the tops, or why there are none."""
    try:
        return [tuple(top.shape) for top in run(case.build(), meta(case.bottoms))]
    except (LayerError, RuntimeError, ValueError, IndexError) as error:
        return error


@every_case
def test_refused_is_what_forward_refuses(case: LayerCase) -> None:
    """With the same words, unless it is torch that refuses it in forward."""
    for shapes in changed(case.bottoms):
        other = replace(case, bottoms=shapes)
        stated = outcome(other, Layer.infer)
        computed = outcome(other, lambda layer, bottoms: as_tuple(layer(*bottoms)))
        if isinstance(computed, LayerError):
            assert isinstance(stated, LayerError)
            assert (str(stated), stated.field) == (str(computed), computed.field)
        elif isinstance(computed, Exception):
            assert isinstance(stated, LayerError), f"{shapes}: {computed}"
        else:
            assert stated == computed, shapes
