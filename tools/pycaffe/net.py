"""``caffe.Net``: a net with Caffe's Python interface, standing on :class:`cortado.netdef.Net`."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...layers.data.memory_data import MemoryData
from ...layers.python import Python
from ...netdef import Net as NetModule
from ...netdef import weights as weights_files
from ...netdef.steps import SourceStep
from ...proto.files import read_net
from ...proto.weights import write_weights, write_weights_hdf5
from . import mode, modules
from .batches import Batches
from .blob import NetBlob, ParamBlob
from .errors import caffe_errors, check_file
from .layer import NetLayer, parameter_blobs
from .passes import Callback, Passes, loss_of
from .stages import stages_of


class Net(Batches):
    """A net from a prototxt file.

    ``Net(network_file, phase, level=0, stages=None, weights=None)``, or in the older form
    ``Net(network_file, weights, phase)``; ``variables`` are values for those of the file. It runs
    where :func:`set_mode_cpu` and :func:`set_mode_gpu` say. RuntimeError for files that cannot be
    opened and nets that Caffe would refuse.
    """

    def __init__(
        self,
        network_file: str | os.PathLike[str],
        phase: int | str | os.PathLike[str],
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> None:
        if isinstance(phase, str | os.PathLike):
            weights, phase, level = phase, level, 0
        modules.offer_caffe()
        path = check_file(network_file)
        with caffe_errors():
            source = read_net(path, variables)
            module = NetModule(
                source, phase, level=level, stages=stages or (), device=mode.device()
            )
        for step in module.sources:
            step.source.seed(mode.derived_seed())
        self._stand_on(module, follows_mode=True)
        if weights is not None:
            self.copy_from(check_file(weights))

    @classmethod
    def over(cls, module: NetModule) -> Net:
        """The same interface on a net that exists; it stays on its device."""
        net = cls.__new__(cls)
        net._stand_on(module, follows_mode=False)
        return net

    def _stand_on(self, module: NetModule, follows_mode: bool) -> None:
        self.module = module
        self._follows_mode = follows_mode
        self._stages, blobs = stages_of(module)
        self.blobs: OrderedDict[str, NetBlob] = OrderedDict(blobs)
        self._passes = Passes(self._stages)
        #: Nets that parameters are shared with: what is written into theirs counts here.
        self._partners: list[Net] = []
        self._adopt_python_layers()

    def _adopt_python_layers(self) -> None:
        for stage in self._stages:
            if isinstance(stage.layer, Python):
                stage.layer.adopt()

    # -- what there is -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.module.name

    @cached_property
    def params(self) -> OrderedDict[str, list[ParamBlob]]:
        """The parameter blobs of every layer that has some, by layer name."""
        return OrderedDict(
            (stage.name, parameter_blobs(stage)) for stage in self._stages
            if stage.layer is not None and stage.layer.blobs
        )  # fmt: skip

    @cached_property
    def layers(self) -> list[Any]:
        """One object a layer: for a Python layer that very instance, else type and blobs."""
        return [
            stage.layer.instance
            if isinstance(stage.layer, Python)
            else NetLayer(stage, self._passes, self.params.get(stage.name, []))
            for stage in self._stages
        ]

    @cached_property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """:attr:`layers` by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @property
    def inputs(self) -> list[str]:
        """The tops of Input layers."""
        return [
            name for index, stage in enumerate(self._stages) if self._passes.is_input(index)
            for name in stage.step.tops
        ]  # fmt: skip

    @cached_property
    def outputs(self) -> list[str]:
        """The blobs that no layer reads, in alphabetical order."""
        available: set[str] = set()
        for stage in self._stages:
            available.difference_update(stage.bottom_names)
            available.update(stage.step.tops)
        return sorted(available)

    @cached_property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The tops of every layer by its name."""
        return OrderedDict((stage.name, list(stage.step.tops)) for stage in self._stages)

    @cached_property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The bottoms of every layer by its name."""
        return OrderedDict((stage.name, list(stage.bottom_names)) for stage in self._stages)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """How much each element of a blob counts in the loss, by blob name."""
        return OrderedDict((name, blob.loss_weight) for name, blob in self.blobs.items())

    @property
    def _layer_names(self) -> list[str]:
        return [stage.name for stage in self._stages]

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[NetBlob]:
        return list(self.blobs.values())

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    def _top_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(name) for name in self._stages[index].step.tops]

    def _bottom_ids(self, index: int) -> list[int]:
        return [self._blob_names.index(name) for name in self._stages[index].bottom_names]

    # -- passes ------------------------------------------------------------------------------------

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Run the layers from ``start`` to ``end``, both included; by default all of them.

        Keyword arguments fill the inputs, all of them or none. Returns the data of the outputs (of
        the tops of ``end`` if given) and of ``blobs``, by name; ValueError for an unknown layer.
        """
        wanted = list(blobs or [])
        first = 0 if start is None else self._layer_names.index(start)
        last = len(self._stages) - 1 if end is None else self._layer_names.index(end)
        wanted = [*(self.outputs if end is None else self.top_names[end]), *wanted]
        if kwargs:
            self._fill(kwargs, self.inputs, "Input blob arguments do not match net inputs.", "data")
        self._run(first, last)
        return {name: self.blobs[name].data for name in dict.fromkeys(wanted)}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Pass gradients from layer ``start`` down to ``end``, both included; by default all.

        Keyword arguments fill the diffs of the outputs, all of them or none. Returns the diffs of
        the inputs (of the bottoms of ``end`` if given) and of the blobs in ``diffs``, by name.
        """
        wanted = list(diffs or [])
        first = len(self._stages) - 1 if start is None else self._layer_names.index(start)
        last = 0 if end is None else self._layer_names.index(end)
        wanted = [*(self.inputs if end is None else self.bottom_names[end]), *wanted]
        if kwargs:
            self._fill(kwargs, self.outputs, "Top diff arguments do not match net outputs.", "diff")
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in dict.fromkeys(wanted)}

    def _fill(
        self, given: dict[str, np.ndarray], names: Sequence[str], mismatch: str, side: str
    ) -> None:
        if set(given) != set(names):
            raise Exception(mismatch)
        for name, values in given.items():
            if values.shape[0] != self.blobs[name].shape[0]:
                what = "Input" if side == "data" else "Diff"
                raise Exception(f"{what} is not batch sized")
            getattr(self.blobs[name], side)[...] = values

    def _forward(self, start: int, end: int) -> float:
        """Run layers by index; returns their part of the loss."""
        return loss_of(self._run(start, end))

    def _run(self, start: int, end: int) -> list[torch.Tensor]:
        self._synchronize()
        with self.module.execution.context(self._device):
            return self._passes.forward(start, end, self._device)

    def _backward(self, start: int, end: int) -> None:
        self._synchronize()
        with self.module.execution.context(self._device):
            self._passes.backward(start, end)
        for blob in self._parameters():
            blob.forget()

    def before_forward(self, callback: Callback) -> None:
        """Call ``callback(index)`` before each layer's forward."""
        self._passes.before_forward.append(callback)

    def after_forward(self, callback: Callback) -> None:
        """Call ``callback(index)`` after each layer's forward."""
        self._passes.after_forward.append(callback)

    def before_backward(self, callback: Callback) -> None:
        """Call ``callback(index)`` before each layer's backward."""
        self._passes.before_backward.append(callback)

    def after_backward(self, callback: Callback) -> None:
        """Call ``callback(index)`` after each layer's backward."""
        self._passes.after_backward.append(callback)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs' shapes, before computing."""
        self._synchronize()
        self._passes.reshape()

    def clear_param_diffs(self) -> None:
        """Set the diffs of all parameters to 0."""
        for blob in self._parameters():
            blob.clear_diff()

    # -- parameters and files ----------------------------------------------------------------------

    def copy_from(self, weights: str | os.PathLike[str]) -> None:
        """Copy weights from a file to the layers of the same name."""
        self._load(check_file(weights))

    def load_hdf5(self, filename: str | os.PathLike[str]) -> None:
        """Copy weights from an HDF5 file to the layers of the same name."""
        self._load(check_file(filename))

    def _load(self, path: str) -> None:
        self._synchronize()
        with caffe_errors():
            report = self.module.load([path])
        for name in report.ignored:
            mode.log(f"Ignoring source layer {name}")

    def share_with(self, other: Net) -> None:
        """Use the parameters of the other net's layers of the same name, in the same memory."""
        with caffe_errors():
            self.module.share(other.module)
        self._partners.append(other)
        self._adopt_python_layers()

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the weights as a .caffemodel."""
        self._synchronize()
        blobs = weights_files.collect(self.module)
        write_weights(os.fspath(filename), self.module.to_message(), blobs)

    def save_hdf5(self, filename: str | os.PathLike[str]) -> None:
        """Write the weights as HDF5."""
        self._synchronize()
        with caffe_errors():
            blobs = weights_files.collect(self.module)
            write_weights_hdf5(os.fspath(filename), blobs, self.module.to_message())

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Give the net's first layer, a MemoryData, its images and labels.

        Both must be float32 and C-contiguous, ``data`` with 4 axes; as many as a multiple of the
        batch size. RuntimeError otherwise. They are copied.
        """
        step = self._stages[0].step
        if not (isinstance(step, SourceStep) and isinstance(step.source, MemoryData)):
            raise RuntimeError(
                "set_input_arrays may only be called if the first layer is a MemoryDataLayer"
            )
        if labels.ndim == 1:
            labels = labels[:, np.newaxis, np.newaxis, np.newaxis]
        for title, array in (("data array", data), ("labels array", labels)):
            if not array.flags.c_contiguous:
                raise RuntimeError(f"{title} must be C contiguous")
            if array.ndim != 4:
                raise RuntimeError(f"{title} must be 4-d")
            if array.dtype != np.float32:
                raise RuntimeError(f"{title} must be float32")
        with caffe_errors():
            step.source.set_data(data, labels)

    # -- devices -----------------------------------------------------------------------------------

    def _parameters(self) -> list[ParamBlob]:
        return [blob for blobs in self.params.values() for blob in blobs]

    @property
    def _device(self) -> torch.device:
        return mode.device() if self._follows_mode else self.module.device

    def _synchronize(self) -> None:
        """Be on the device of the mode, with everything there that scripts have written."""
        device = self._device
        if device.type == "cpu" and self.module.device == device:
            return
        for blob in self.blobs.values():
            blob.values.push()
            blob.gradient.push()
        for net in (self, *self._partners):
            for parameter in net._parameters():
                parameter.push()
                parameter.forget()
        if self.module.device != device:
            self.module.to(device)
            for blob in self.blobs.values():
                blob.values.move(device)
                blob.gradient.move(device)
            for stage in self._stages:
                stage.record = None
