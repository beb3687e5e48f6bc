"""What is legal in a net but probably not meant; told by ``cortado check``, each with its place."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..proto import caffe_pb2
from ..proto.errors import Fault
from .blueprint import Blueprint
from .steps import SourceStep, Step

#: Losses that apply a function of their own, and the layer that applies the same one.
_OWN_FUNCTION = {
    "SoftmaxWithLoss": "Softmax",
    "FocalLoss": "Softmax",
    "SigmoidCrossEntropyLoss": "Sigmoid",
    "Softmax": "Softmax",
}


def advise(plan: Blueprint) -> list[Fault]:
    """Everything about ``plan`` that deserves a warning, in the order of its layers."""
    rules = (_gradients, _rates, _randomness, _batches, _twice, _statistics, _unused)
    return [fault for rule in rules for fault in rule(plan)]


def _trains(plan: Blueprint) -> bool:
    return plan.state.phase == caffe_pb2.TRAIN


def _gradients(plan: Blueprint) -> Iterator[Fault]:
    """A loss from which no gradient goes anywhere, in a net that has parameters."""
    if not _trains(plan) or not plan.params:
        return
    for step in plan.steps:
        if step.losses and not step.needs_backward:
            yield step.spec.fault("a loss without gradient: no layer before it learns")


def _rates(plan: Blueprint) -> Iterator[Fault]:
    learnable = [param for param in plan.params if param.learnable]
    if _trains(plan) and learnable and all(param.lr_mult == 0 for param in learnable):
        step = next(step for step in plan.steps if step.name == learnable[0].layer)
        yield step.spec.fault("lr_mult is 0 for every parameter: nothing learns", "param")


def _randomness(plan: Blueprint) -> Iterator[Fault]:
    """Dropout and changes of images that go on while testing."""
    if _trains(plan):
        return
    for each in plan.order:
        message = each.spec.message
        if each.type == "Dropout":
            only_here = any(rule.phase == caffe_pb2.TEST for rule in message.include)
            if message.phase == caffe_pb2.TRAIN:
                yield each.spec.fault("Dropout drops in the TEST net, because it says so", "phase")
            elif only_here:
                yield each.spec.fault(
                    "Dropout belongs to TEST alone, where it does nothing", "include"
                )
        if isinstance(each, SourceStep):
            transform = message.transform_param
            if transform.mirror:
                yield each.spec.fault(
                    "images are mirrored at random in TEST", "transform_param.mirror"
                )
            if transform.augment.in_test:
                yield each.spec.fault(
                    "images are augmented in TEST", "transform_param.augment.in_test"
                )


def _batches(plan: Blueprint) -> Iterator[Fault]:
    """Batches that begin in one epoch and end in the next."""
    for source in plan.sources:
        records, shape = source.source.records, source.top_shapes[0] if source.tops else ()
        if records and shape and records % shape[0]:
            yield source.spec.fault(
                f"{records:,} records are no multiple of the batch of {shape[0]}: an epoch ends in "
                "the middle of a batch, and the next records are those of its beginning",
                f"{source.source.message_field}.batch_size",
            )


def _twice(plan: Blueprint) -> Iterator[Fault]:
    makers: dict[str, Step | SourceStep] = {}
    for step in plan.order:
        if isinstance(step, Step) and step.bottoms:
            maker = makers.get(step.bottoms[0])
            applied = _OWN_FUNCTION.get(step.type)
            if maker is not None and applied is not None and maker.type == applied:
                yield step.spec.fault(
                    f"{applied} is applied twice: {step.type} applies it to the output of "
                    f"{maker.type} layer {maker.name!r} again",
                    "bottom",
                    ("the first one is here", maker.spec),
                )
        makers.update(dict.fromkeys(step.tops, step))


def _statistics(plan: Blueprint) -> Iterator[Fault]:
    for step in plan.steps:
        if step.type == "BatchNorm" and _trains(plan):
            given = step.spec.message.batch_norm_param
            uses_stored = given.HasField("use_global_stats") and given.use_global_stats
            if step.bottom_shapes[0][:1] == (1,) and not uses_stored:
                yield step.spec.fault(
                    "BatchNorm of batches of 1: its statistics are those of a single sample"
                )


def _unused(plan: Blueprint) -> Iterator[Fault]:
    """In a net with losses: tops that nobody reads and that are no score to look at."""
    if not any(step.losses for step in plan.steps):
        return
    makers = {top: each for each in plan.order for top in each.tops}
    for blob in plan.outputs:
        maker = makers[blob]
        if isinstance(maker, Step) and (maker.losses or not maker.layer.differentiable):
            continue
        if math.prod(plan.blob_shapes[blob]) > 1:
            index = maker.tops.index(blob)
            what = "input" if isinstance(maker, SourceStep) else "layer"
            yield maker.spec.fault(
                f"nobody reads its top {blob!r}: this {what} is unused (a Silence layer would keep "
                "its values out of the log)",
                f"top.{index}",
            )
