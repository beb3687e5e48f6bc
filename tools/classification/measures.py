"""How good a classifier is, counted over batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...proto.errors import NumericError
from .model import Scores

#: The smallest probability whose logarithm counts, as in SoftmaxWithLoss.
SMALLEST = torch.finfo(torch.float32).tiny
TOP = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one sample. ``rank`` is the number of classes that were at least as good
    as the true one, with itself: 1 is right."""

    key: str
    label: int
    predicted: int
    probability: float
    rank: int
    loss: float


@dataclass(slots=True)
class Measures:
    """Counts over all samples of a model with ``classes`` classes.

    Another class with the score of the true one counts as better, as in Caffe's Accuracy.
    """

    classes: int
    images: Tensor = field(init=False)
    right: Tensor = field(init=False)
    among_top: Tensor = field(init=False)
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    losses: float = 0.0
    bad: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images, self.right, self.among_top = torch.zeros(3, self.classes, dtype=torch.long)

    @property
    def top(self) -> int:
        """The k of top-k: 5, or fewer where there are fewer classes."""
        return min(TOP, self.classes)

    @property
    def count(self) -> int:
        """How many samples were counted."""
        return int(self.images.sum())

    def share(self, counts: Tensor) -> float:
        """``counts`` (of :attr:`right` or :attr:`among_top`) as a share of all samples."""
        return int(counts.sum()) / max(1, self.count)

    @property
    def loss(self) -> float:
        """The mean over the samples of -log of the true class's probability."""
        return self.losses / max(1, self.count)

    def add(self, keys: Sequence[str], labels: Sequence[int], scores: Scores) -> Iterator[Verdict]:
        """Count a batch; NumericError, with the key, for a score that is no finite number."""
        ranking, index = scores.ranking, torch.tensor(labels)[:, None]
        wrong = (~torch.isfinite(ranking)).any(1).nonzero()
        if len(wrong):
            raise NumericError(f"{keys[int(wrong[0])]}: the net gives a score that is not finite")
        ranks = (ranking >= ranking.gather(1, index)).sum(1)
        if scores.logits is not None:
            losses = -scores.logits.log_softmax(1).gather(1, index)[:, 0]
        else:
            losses = -scores.probabilities.gather(1, index)[:, 0].clamp(min=SMALLEST).log()
        predicted = ranking.argmax(1)
        best = scores.probabilities.gather(1, predicted[:, None])[:, 0]
        flat = index[:, 0]
        self.images += torch.bincount(flat, minlength=self.classes)
        self.right += torch.bincount(flat[ranks <= 1], minlength=self.classes)
        self.among_top += torch.bincount(flat[ranks <= self.top], minlength=self.classes)
        self.losses += float(losses.double().sum())
        columns = (predicted.tolist(), best.tolist(), ranks.tolist(), losses.tolist())
        self.pairs.update(zip(labels, columns[0], strict=True))
        yield from map(Verdict, keys, labels, *columns)

    def accuracies(self) -> list[tuple[int, int, float, float]]:
        """Class, samples, top-1 and top-k of each class that has samples, the worst first."""
        rows = [
            (number, images, right / images, top / images)
            for number, (images, right, top) in enumerate(
                zip(self.images.tolist(), self.right.tolist(), self.among_top.tolist(), strict=True)
            )
            if images
        ]
        return sorted(rows, key=lambda row: (row[2], row[3], row[0]))

    def confused(self, count: int) -> list[tuple[int, int, int]]:
        """The true class, the one it was taken for, and how often, most frequent first."""
        wrong = [(*pair, number) for pair, number in self.pairs.items() if pair[0] != pair[1]]
        return sorted(wrong, key=lambda row: (-row[2], row[:2]))[:count]

    def matrix(self) -> Tensor:
        """How often each class (row) was taken for each class (column)."""
        counts = torch.zeros(self.classes, self.classes, dtype=torch.long)
        for (label, predicted), number in self.pairs.items():
            counts[label, predicted] = number
        return counts

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Everything counted, for JSON."""
        return {
            "images": self.count,
            "top1": self.share(self.right),
            f"top{self.top}": self.share(self.among_top),
            "loss": self.loss,
            "classes": [
                {"class": number, "name": names[number], "images": images, "top1": one,
                 f"top{self.top}": top}
                for number, images, one, top in sorted(self.accuracies())
            ],
            "confused": [
                {"class": names[label], "taken_for": names[other], "times": times}
                for label, other, times in self.confused(len(self.pairs))
            ],
            "skipped": [{"key": key, "reason": reason} for key, reason in self.bad],
        }  # fmt: skip
