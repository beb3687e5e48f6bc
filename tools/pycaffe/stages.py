"""A net as Caffe lists it: its layers with the Splits that Caffe puts in, and its blobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...layers.base import Context, Layer, Shape
from ...layers.registry import find
from ...netdef import Net as Module
from ...netdef import backward
from ...netdef.parameters import Tie
from ...netdef.splits import insert_splits
from ...netdef.state import LayerSpec
from ...netdef.steps import SourceStep, Step
from ...proto import caffe_pb2
from .blob import NetBlob

#: Layers whose tops are the memory of their bottom in Caffe.
_SHARING = ("Split", "Reshape", "Flatten")


@dataclass(slots=True)
class Record:
    """What backward needs of a layer's last forward: its bottoms, parameters and tops as autograd
    knows them, and the versions that the parameters had."""

    bottoms: list[Tensor]
    parameters: list[Tensor]
    tops: Sequence[Tensor]
    versions: list[int]

    @property
    def valid(self) -> bool:
        """Whether the parameters are still the ones of that forward."""
        return all(p._version == v for p, v in zip(self.parameters, self.versions, strict=True))


@dataclass(slots=True)
class Stage:
    """One layer in Caffe's list, with its blobs.

    ``wants`` are the indices of bottoms that get a gradient; ``ties`` the parameters it sees that
    another layer owns.
    """

    step: Step | SourceStep
    bottoms: list[NetBlob]
    tops: list[NetBlob]
    wants: frozenset[int] = frozenset()
    ties: tuple[Tie, ...] = ()
    record: Record | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def layer(self) -> Layer | None:
        """The module, or None for a data source."""
        return self.step.layer if isinstance(self.step, Step) else None

    @property
    def bottom_names(self) -> tuple[str, ...]:
        return self.step.bottoms if isinstance(self.step, Step) else ()

    @property
    def needs_backward(self) -> bool:
        return isinstance(self.step, Step) and self.step.needs_backward

    def parameters(self) -> list[Tensor]:
        """The torch parameters that get a gradient here, those of owners for shared ones."""
        assert isinstance(self.step, Step)
        own = [tensor for tensor in self.step.layer._parameters.values() if tensor is not None]
        own += [getattr(tie.owner, tie.owner_attribute) for tie in self.ties if tie.reshapes]
        return [parameter for parameter in own if parameter.requires_grad]


def stages_of(module: Module) -> tuple[list[Stage], dict[str, NetBlob]]:
    """The layers of ``module`` as Caffe lists them, and all blobs by name in Caffe's order."""
    steps = _with_splits(module)
    force = module.definition.force_backward
    fed = [top for step in module.sources for top in step.tops]
    backward.mark([step for step in steps if isinstance(step, Step)], fed, force)
    device = module.device
    blobs: dict[str, NetBlob] = {}
    carries = dict.fromkeys(fed, force)
    stages = []
    for step in steps:
        stage = Stage(step, [], [])
        if isinstance(step, Step):
            stage.bottoms = [blobs[name] for name in step.bottoms]
            stage.ties = tuple(tie for tie in module.ties if tie.module is step.layer)
            if step.needs_backward:
                stage.wants = frozenset(
                    index
                    for index, name in enumerate(step.bottoms)
                    if carries[name] and index not in step.detached
                )
        for index, (name, shape) in enumerate(zip(step.tops, step.top_shapes, strict=True)):
            if name not in blobs:
                weight = step.losses.get(index, 0.0) if isinstance(step, Step) else 0.0
                blobs[name] = NetBlob(shape, device, weight)
                blobs[name].may_share = step.type in _SHARING
                blobs[name].origins = stage.bottoms
            carries[name] = carries.get(name, False)
            if isinstance(step, Step):
                carries[name] = step.needs_backward and step.layer.differentiable
        stage.tops = [blobs[name] for name in step.tops]
        stages.append(stage)
    for source in (stage for stage in stages if stage.layer is None):
        assert isinstance(source.step, SourceStep)
        for blob, preset in zip(source.tops, source.step.source.preset(device), strict=True):
            if preset is not None:
                blob.put(preset)
    return stages, blobs


def _with_splits(module: Module) -> list[Step | SourceStep]:
    """The steps of ``module`` with Splits between them, wired as Caffe wires them."""
    steps: list[Step | SourceStep] = []
    shapes: dict[str, Shape] = {}
    for message, index in insert_splits(module.to_message().layer):
        if index is None:
            steps.append(_split_step(message, shapes[message.bottom[0]]))
        else:
            step = module.order[index]
            if isinstance(step, Step):
                losses = step.losses
                if module.order[index].spec.message.loss_weight and not message.loss_weight:
                    losses = {}  # the Split behind it carries the weight
                step = replace(
                    step, spec=LayerSpec(message, step.spec.node), bottoms=tuple(message.bottom),
                    losses=losses,
                )  # fmt: skip
            steps.append(step)
        shapes.update(zip(message.top, steps[-1].top_shapes, strict=True))
    return steps


def _split_step(message: caffe_pb2.LayerParameter, shape: tuple[int, ...]) -> Step:
    layer_type = find("Split")
    assert issubclass(layer_type, Layer)
    tops = tuple(message.top)
    layer = layer_type.from_message(message, Context((shape,), len(tops)))
    losses = {index: weight for index, weight in enumerate(message.loss_weight) if weight}
    return Step(
        LayerSpec(message), layer, tuple(message.bottom), tops, (shape,), (shape,) * len(tops),
        losses=losses,
    )  # fmt: skip
