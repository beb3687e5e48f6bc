"""HDF5Output: writing blobs to a file as the net runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
from torch import Tensor

from ..proto import caffe_pb2
from ..proto.errors import LayerError
from .base import Context, Layer, Shape, exactly
from .registry import register


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes its two bottoms to the datasets "data" and "label" of the file ``file_name``.

    The bottoms have the same first axis and are written with 4 axes, as float32. Each forward
    appends its batch; the first one starts the file anew. There is no top and no gradient. As it
    copies to the host and writes, it cannot be traced by torch.compile.

    Torch: has none.
    """

    message_field = "hdf5_output_param"
    bottoms = exactly(2)
    tops = exactly(0)
    differentiable = False
    repeatable = False

    def __init__(self, file_name: str) -> None:
        super().__init__()
        self.file_name = Path(file_name)
        self.started = False

    @classmethod
    def from_message(cls, message: caffe_pb2.LayerParameter, context: Context) -> HDF5Output:
        name = message.hdf5_output_param.file_name
        if not name:
            raise LayerError("file_name must be given", "hdf5_output_param.file_name")
        if not Path(name).absolute().parent.is_dir():
            raise LayerError(
                f"the folder of {name!r} does not exist", "hdf5_output_param.file_name"
            )
        return cls(name)

    def forward(self, data: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        self.top_shapes(data.shape, label.shape)
        if not data.is_meta:
            with h5py.File(self.file_name, "a" if self.started else "w") as file:
                for name, blob in (("data", data), ("label", label)):
                    _append(file, name, blob)
            self.started = True
        return ()

    def top_shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        data, label = bottoms
        if data[:1] != label[:1] or max(len(data), len(label)) > 4:
            raise LayerError(
                "the bottoms must have the same first axis and at most 4 axes, got shapes "
                f"{tuple(data)} and {tuple(label)}",
                "bottom",
            )
        return ()


def _append(file: h5py.File, name: str, blob: Tensor) -> None:
    values = blob.detach().float().cpu().reshape(*blob.shape, *[1] * (4 - blob.dim())).numpy()
    if name not in file:
        file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
        return
    dataset = file[name]
    assert isinstance(dataset, h5py.Dataset)
    count = dataset.shape[0]
    if dataset.shape[1:] != values.shape[1:]:
        raise LayerError(
            f"{name} has items of shape {values.shape[1:]}, but those in the file have "
            f"{dataset.shape[1:]}"
        )
    dataset.resize(count + values.shape[0], axis=0)
    dataset[count:] = values
