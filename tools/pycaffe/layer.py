"""The layers of a net as scripts see them: their type and their parameter blobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ...layers.base import Layer
from .blob import Blob, ParamBlob
from .errors import caffe_errors
from .passes import Passes
from .stages import Stage


class NetLayer:
    """One layer; ``blobs`` are its parameters in Caffe's order."""

    def __init__(self, stage: Stage, passes: Passes, blobs: list[ParamBlob]) -> None:
        self._stage = stage
        self._passes = passes
        self.blobs = blobs

    @property
    def type(self) -> str:
        """The layer type's name, as in prototxt."""
        return self._stage.step.type

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Nothing is left to do: a layer is set up when its net is built."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the layer's tops the shapes that follow from its bottoms."""
        if self._stage.layer is not None:
            with caffe_errors(f"layer {self._stage.name!r}"):
                self._passes.reshape_stage(self._stage.layer, self._stage)


def parameter_blobs(stage: Stage) -> list[ParamBlob]:
    """The blobs of the parameters of ``stage``; for a shared one that of its owner."""
    layer = stage.layer
    assert layer is not None
    blobs = []
    for index, declared in enumerate(layer.blobs):
        tie = next((t for t in stage.ties if t.attribute == declared.name and t.reshapes), None)
        shape = tuple(layer.blob(index).shape)
        if tie is None:
            blobs.append(ParamBlob(_attribute(layer, declared.name), shape))
        else:
            blobs.append(ParamBlob(_attribute(tie.owner, tie.owner_attribute), shape))
    return blobs


def _attribute(layer: Layer, name: str) -> Callable[[], Tensor]:
    def find() -> Tensor:
        tensor = getattr(layer, name)
        assert isinstance(tensor, Tensor)
        return tensor

    return find
