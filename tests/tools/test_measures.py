"""Counting how good a classifier is, against counts made one by one."""

from __future__ import annotations

import pytest
import torch

from cortado.layers.accuracy import Accuracy
from cortado.proto.errors import DataError, NumericError
from cortado.tools.classification.measures import Measures
from cortado.tools.classification.model import Scores
from cortado.tools.classification.samples import numbers_of


def counted(logits: torch.Tensor, labels: list[int], views: bool = False) -> Measures:
    measures = Measures(logits.shape[1])
    for start in range(0, len(labels), 4):
        part = logits[start : start + 4]
        keys = [str(start + place) for place in range(len(part))]
        scores = Scores(part.softmax(1), None if views else part)
        list(measures.add(keys, labels[start : start + 4], scores))
    return measures


@pytest.mark.parametrize("views", [False, True])
def test_counts_are_those_of_the_layers(views: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randint(0, 6, (50, 9), generator=generator).float()  # with many ties
    labels = torch.randint(0, 9, (50,), generator=generator)
    measures = counted(logits, labels.tolist(), views)
    for top_k, counts in ((1, measures.right), (5, measures.among_top)):
        wanted = Accuracy(top_k)(logits, labels.float())
        assert measures.share(counts) == pytest.approx(float(wanted))
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    assert measures.loss == pytest.approx(float(wanted), rel=1e-5)
    assert torch.equal(measures.images, torch.bincount(labels, minlength=9))
    assert int(measures.matrix().sum()) == 50
    assert torch.equal(measures.matrix().sum(1), measures.images)


def test_top_k_of_few_classes_and_the_worst_first() -> None:
    measures = counted(torch.eye(3)[[0, 0, 1, 2, 2]], [0, 1, 1, 2, 0])
    assert measures.top == 3
    assert [row[0] for row in measures.accuracies()] == [0, 1, 2]
    assert measures.accuracies()[2] == (2, 1, 1.0, 1.0)
    assert measures.confused(5) == [(0, 2, 1), (1, 0, 1)]
    assert measures.confused(1) == [(0, 2, 1)]


def test_a_probability_of_nothing_has_a_finite_loss() -> None:
    measures = Measures(2)
    (verdict,) = measures.add(["a"], [1], Scores(torch.tensor([[1.0, 0.0]]), None))
    assert verdict.loss == pytest.approx(87.34, abs=0.01)  # -log of the smallest float, as in Caffe


def test_what_is_not_finite_is_refused() -> None:
    logits = torch.tensor([[1.0, 2.0], [float("inf"), 0.0]])
    with pytest.raises(NumericError, match="b: the net gives a score that is not finite"):
        list(Measures(2).add(["a", "b"], [0, 1], Scores(logits.softmax(1), logits)))


def test_folders_find_their_classes() -> None:
    names = ["cat", "dog", "owl"]
    assert numbers_of(["dog", "owl"], names) == [1, 2]
    assert numbers_of(["a", "b", "c"], names) == [0, 1, 2]
    assert numbers_of([], names) is None
    with pytest.raises(DataError, match="'emu' is no name of one"):
        numbers_of(["dog", "emu"], names)
