"""What a net predicts for the samples of its data, and how it is right or wrong."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...netdef import Net
from ...netdef.steps import Step
from ...proto.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Head:
    """Where a net's classification can be seen: blobs of images, scores and labels, and whether
    the scores are probabilities already."""

    image: str
    scores: str
    label: str
    probabilities: bool

    def read(self, blobs: dict[str, Tensor]) -> Tensor:
        """Probabilities (samples, classes) from a pass's blobs."""
        scores = blobs[self.scores].flatten(1)
        return scores if self.probabilities else scores.softmax(1)


def find_head(net: Net) -> Head:
    """The classification of ``net``: what its last loss or accuracy compares with labels.

    ConfigError if there is none.
    """
    makers = {top: step for step in net.steps for top in step.tops}
    images = [blob for blob, shape in net.inputs.items() if len(shape) == 4]
    for kind in ("SoftmaxWithLoss", "FocalLoss", "Accuracy"):
        for step in reversed(net.steps):
            if step.type == kind and step.bottoms[1] in net.inputs and images:
                scores, label = step.bottoms[:2]
                maker = makers.get(scores)
                return Head(images[0], scores, label, maker is not None and maker.type == "Softmax")
    raise ConfigError(
        f"net {net.name!r}: has no data layer of images whose labels a SoftmaxWithLoss or Accuracy "
        "layer reads; give the net for training and testing"
    )


def batches_of(net: Net, iterations: int) -> int:
    """How many batches are run: ``iterations``, or where it is 0 those of one epoch."""
    if iterations:
        return iterations
    source = net.sources[0]
    records = source.source.records
    if not records:
        raise ConfigError(f"layer {source.name!r}: has no known end; give --iterations")
    return -(-records // source.top_shapes[0][0])


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its image (channels, height, width), label and probabilities."""

    image: Tensor
    label: int
    probabilities: Tensor


def samples(net: Net, head: Head, iterations: int) -> Iterator[Sample]:
    """Each sample of that many batches, but none twice where the last batch begins anew."""
    left = net.sources[0].source.records if not iterations else None
    net.keep_blobs = True
    with torch.no_grad():
        for _ in range(batches_of(net, iterations)):
            batch = net.next_batch()
            net(**batch)
            found = head.read(net.blobs).cpu()
            count = len(found) if left is None else min(left, len(found))
            left = None if left is None else left - count
            labels = batch[head.label].flatten().long().tolist()
            images = batch[head.image].cpu()
            for index in range(count):
                yield Sample(images[index], labels[index], found[index])


@dataclass(slots=True)
class Confusion:
    """How often each class (row) was taken for each class (column)."""

    counts: Tensor

    @classmethod
    def of(cls, classes: int, found: Iterator[Sample]) -> Confusion:
        counts = torch.zeros(classes, classes, dtype=torch.long)
        for sample in found:
            if 0 <= sample.label < classes:
                counts[sample.label, int(sample.probabilities.argmax())] += 1
        return cls(counts)

    @property
    def accuracy(self) -> float:
        return float(self.counts.diagonal().sum()) / max(1, int(self.counts.sum()))

    def scores(self) -> list[tuple[float, float, float]]:
        """Precision, recall and their harmonic mean F1 of each class; 0 where undefined."""
        right = self.counts.diagonal().double()
        precision = right / self.counts.sum(0).clamp(min=1)
        recall = right / self.counts.sum(1).clamp(min=1)
        both = precision + recall
        harmonic = torch.where(both > 0, 2 * precision * recall / both.clamp(min=1e-12), both)
        rows = torch.stack([precision, recall, harmonic], 1).tolist()
        return [(p, r, f) for p, r, f in rows]


@dataclass(order=True, slots=True)
class _Ranked:
    certainty: float
    place: int
    sample: Sample = field(compare=False)


def worst(found: Iterator[Sample], count: int) -> list[Sample]:
    """The wrongly named samples whose own class got the smallest probability, worst first."""
    wrong = (
        _Ranked(float(sample.probabilities[sample.label]), place, sample)
        for place, sample in enumerate(found)
        if int(sample.probabilities.argmax()) != sample.label
    )
    return [ranked.sample for ranked in heapq.nsmallest(count, wrong)]


# -- why: gradients --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """Where in an image (channels, height, width) a class was seen: maps of the image's size from
    0 to 1, by gradients at a layer (Grad-CAM) and at the image itself (saliency)."""

    image: Tensor
    wanted: int
    probability: float
    layer: str
    cam: Tensor
    saliency: Tensor


def explain(net: Net, head: Head, image: Tensor, layer: str = "", wanted: int = -1) -> Reason:
    """Grad-CAM (Selvaraju et al. 2017) and saliency (Simonyan et al. 2014) of one image.

    ``wanted`` is the class asked about, by default the one predicted; ``layer`` the one whose maps
    are weighted, by default the last that has maps.
    """
    net.keep_blobs = True
    batch = {name: torch.zeros((1, *shape[1:])) for name, shape in net.inputs.items()}
    batch[head.image] = image[None].clone().requires_grad_()
    batch = {name: values.to(net.params[0].tensor.device) for name, values in batch.items()}
    net(**batch)
    probabilities = head.read(net.blobs)[0]
    wanted = int(probabilities.argmax()) if wanted < 0 else wanted
    if wanted >= len(probabilities):
        raise ConfigError(f"--class must be below {len(probabilities)}, got {wanted}")
    step = net.layer(layer) if layer else last_with_maps(net)
    maps = net.blobs[step.tops[0]]
    if maps.dim() != 4:
        raise ConfigError(f"layer {step.name!r}: has no maps (its top is {list(maps.shape)})")
    score = net.blobs[head.scores].flatten(1)[0, wanted]
    at_maps, at_image = torch.autograd.grad(score, [maps, batch[head.image]])
    cam = (at_maps.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    size = image.shape[1:]
    cam = torch.nn.functional.interpolate(cam, size, mode="bilinear", align_corners=False)
    return Reason(
        image,
        wanted,
        float(probabilities[wanted].detach()),
        step.name,
        _stretched(cam[0, 0]),
        _stretched(at_image[0].abs().amax(0)),
    )


def last_with_maps(net: Net) -> Step:
    """The last layer whose top has maps of more than one position."""
    found = [step for step in net.steps if step.tops and _has_maps(step.top_shapes[0])]
    if not found:
        raise ConfigError(f"net {net.name!r}: has no layer with maps")
    return found[-1]


def _has_maps(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


def _stretched(values: Tensor) -> Tensor:
    values = values.detach().cpu()
    return values / values.max().clamp(min=1e-12)
