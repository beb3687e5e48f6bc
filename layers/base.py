"""What every layer is: a torch module that knows its arity, its blobs and its message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .arguments import construct
from .fillers import Filler, constant

Shape = tuple[int, ...]

TRAIN: int = caffe_pb2.TRAIN
TEST: int = caffe_pb2.TEST


@dataclass(frozen=True, slots=True)
class Arity:
    """How many bottoms or tops a layer takes; ``high`` None means any number from ``low``."""

    low: int
    high: int | None

    def __contains__(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


def exactly(count: int) -> Arity:
    return Arity(count, count)


def between(low: int, high: int) -> Arity:
    return Arity(low, high)


def at_least(low: int) -> Arity:
    return Arity(low, None)


@dataclass(frozen=True, slots=True)
class Context:
    """What a layer may know, besides its message, when it is built.

    ``shapes`` are those of the bottoms; ``num_tops`` counts the tops its prototxt names; ``phase``
    is TRAIN or TEST; ``in_place`` says that a top carries the name of a bottom; ``caffe_quirks``
    that the net asks for what Caffe computes by mistake.
    """

    shapes: tuple[Shape, ...] = ()
    num_tops: int = 1
    phase: int = TRAIN
    in_place: bool = False
    caffe_quirks: bool = False


@dataclass(frozen=True, slots=True)
class LabelRange:
    """Class labels that a bottom may hold: 0 to ``classes`` - 1, and ``ignored`` if not None."""

    bottom: int
    classes: int
    ignored: int | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """A parameter blob of a layer: its attribute on the module, and how it is first filled.

    ``learnable`` blobs are torch parameters, the others buffers (BatchNorm's statistics).
    """

    name: str
    filler: Filler
    learnable: bool = True


class Layer(nn.Module):
    """Base of all layers.

    A subclass registers itself with ``@register("Type")``, declares its arity and the name of
    its message as class attributes, takes plain arguments in ``__init__``, and reads them from
    a LayerParameter in :meth:`from_message`. Its parameters are declared by :meth:`add_blob`, in
    Caffe's order, on the meta device: memory is only taken when the net has been checked as a
    whole (:meth:`materialize`). :meth:`top_shapes` gives the shapes of the tops and refuses bottoms
    that cannot work; a layer that leaves it out has its ``forward`` run on meta tensors instead,
    which then must refuse them, by a LayerError where torch would not complain clearly.
    """

    type: ClassVar[str] = ""  # type: ignore[assignment]  # nn.Module.type() casts; .to() does too
    #: Field of LayerParameter that holds this layer's own message, if it has one.
    message_field: ClassVar[str] = ""
    bottoms: ClassVar[Arity] = exactly(1)
    tops: ClassVar[Arity] = exactly(1)
    #: Weight of the first top in the net's loss when the prototxt gives none.
    default_loss_weight: ClassVar[float] = 0.0
    #: Whether a prototxt may leave out tops that the layer must have (losses): it gets them then,
    #: but they are no outputs of the net.
    automatic_tops: ClassVar[bool] = False
    #: Whether a top may carry the name of a bottom.
    allows_in_place: ClassVar[bool] = False
    #: False for layers that cannot be asked for gradients (Accuracy, ArgMax ...): the net gives
    #: them detached bottoms.
    differentiable: ClassVar[bool] = True
    #: Whether the top has the shape of the first bottom.
    keeps_shape: ClassVar[bool] = False
    #: False for layers whose passes may differ although bottoms, blobs and random numbers are the
    #: same, or that do more than compute their tops (code of the user's own): they run every time.
    repeatable: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.blobs: list[Blob] = []
        self._constants: dict[str, tuple[float, ...]] = {}

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> Layer:
        """Build the layer that ``message`` declares, for bottoms of ``context.shapes``.

        Unless a subclass does otherwise, each argument of the constructor is the field of this
        name in the layer's own message, or in the block called after its type; an argument
        ``context`` is the context. Raises LayerError, with the field's path, for a value that
        cannot work.
        """
        return construct(cls, message, context)

    def add_blob(
        self, name: str, shape: Sequence[int], filler: Filler | None = None, learnable: bool = True
    ) -> None:
        """Declare the next parameter blob, as attribute ``name``, without taking memory for it.

        Raises LayerError if the filler cannot fill this shape.
        """
        empty = torch.empty(tuple(shape), device="meta")
        filler = filler or constant(0.0)
        filler(empty)
        if learnable:
            self.register_parameter(name, nn.Parameter(empty))
        else:
            self.register_buffer(name, empty)
        self.blobs.append(Blob(name, filler, learnable))

    def add_constant(self, name: str, values: Sequence[float]) -> None:
        """Declare numbers that forward needs on the device, as buffer ``name``; no blob."""
        self.register_buffer(name, torch.empty(len(values), device="meta"), persistent=False)
        self._constants[name] = tuple(values)

    def blob(self, index: int) -> Tensor:
        """The parameter blob at ``index`` in Caffe's order."""
        tensor = getattr(self, self.blobs[index].name)
        assert isinstance(tensor, Tensor)
        return tensor

    def materialize(self, device: torch.device | str = "cpu") -> None:
        """Give the declared blobs memory on ``device`` and fill them from torch's global generator.

        Filling happens on the CPU, so that a seed gives the same weights on every device.
        """
        for blob in self.blobs:
            declared = getattr(self, blob.name)
            if not declared.is_meta:
                continue
            values = torch.empty(declared.shape)
            blob.filler(values)
            values = values.to(device)
            if blob.learnable:
                values = nn.Parameter(values, requires_grad=declared.requires_grad)
            setattr(self, blob.name, values)
        for name, constants in self._constants.items():
            if getattr(self, name).is_meta:
                setattr(self, name, torch.tensor(constants, device=device))

    def infer(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Meta tensors of the tops for meta tensors of the bottoms."""
        shapes = self.top_shapes(*(tuple(x.shape) for x in bottoms))
        if shapes is not None:
            return tuple(torch.empty(shape, device="meta") for shape in shapes)
        with torch.no_grad():
            tops = self(*bottoms)
        return (tops,) if isinstance(tops, Tensor) else tuple(tops)

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape] | None:
        """Shapes of the tops for bottoms of these shapes, or None: they follow from ``forward``.

        The layers here give them, since torch imports its compiler, which takes a second, to run
        the first operation on meta tensors. Raises LayerError for bottoms that cannot work.
        """
        self.check_shapes(*bottoms)
        return bottoms[:1] if self.keeps_shape else None

    def check_shapes(self, *bottoms: Shape) -> None:
        """LayerError for bottoms of shapes that cannot work.

        For layers whose top shapes say nothing of that: ``keeps_shape``, losses. ``forward`` calls
        it where torch would compute something or not complain clearly.
        """

    def label_range(self, bottoms: Sequence[Shape]) -> LabelRange | None:
        """Which bottom holds class labels and their range, for bottoms of these shapes.

        The net tells it to the data source that feeds the bottom, which checks every batch on the
        host: a wrong label on a GPU would only show as a crash or as garbage.
        """
        return None

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Multiply-accumulate operations of one forward pass; 0 for layers without products."""
        return 0


def canonical_axis(axis: int, dimensions: int, field_path: str) -> int:
    """``axis`` counted from the front; a LayerError if a blob of ``dimensions`` axes has it not."""
    if not -dimensions <= axis < dimensions:
        raise LayerError(
            f"axis {axis} is outside a blob of {dimensions} axes "
            f"(must be from {-dimensions} to {dimensions - 1})",
            field_path,
        )
    return axis % dimensions
