"""The net: a torch module made from a prototxt."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.base import Shape
from ..proto import caffe_pb2
from ..proto.errors import ConfigError, DataError, nearest
from ..proto.weights import LayerBlobs
from . import backward, blueprint, layout, memory, parameters, passes, weights
from .blueprint import NetSource
from .compilation import compiled
from .execution import Execution
from .inference import Inference
from .parameters import ParamRef, Tie
from .steps import SourceStep, Step, run_steps
from .weights import CopyReport, WeightsSource

logger = logging.getLogger(__name__)


class Net(nn.Module):
    """A net declared in prototxt, as a torch module.

    Args:
        source: path of a prototxt, a NetParameter, or a Document that was read before.
        phase: "TRAIN" or "TEST" (or Caffe's numbers 0 and 1).
        level, stages: what the layers' include and exclude rules are held against.
        weights: weights to start from, as for :meth:`load`.
        device: where parameters and batches live.
        share_with: a net whose parameters layers of the same name use too (a test net does so).
        execution: how it is run: precision, memory layout, recomputation.
        check_memory: refuse a net that the device cannot hold.

    Calling it feeds input blobs by name and gives the output blobs (those that no layer consumes)
    by name; :attr:`loss` is then the weighted sum of the loss tops. Raises ConfigError with all
    faults of the definition, before anything is allocated.
    """

    def __init__(
        self,
        source: NetSource,
        phase: str | int = "TRAIN",
        *,
        level: int = 0,
        stages: Iterable[str] = (),
        weights: WeightsSource | None = None,
        device: torch.device | str = "cpu",
        share_with: Net | None = None,
        execution: Execution | None = None,
        check_memory: bool = True,
    ) -> None:
        super().__init__()
        plan = blueprint.draw(source, phase, level, stages)
        if check_memory:
            memory.check(plan, torch.device(device))
        self.definition: caffe_pb2.NetParameter = plan.message
        self.name: str = plan.message.name
        self.phase: int = plan.state.phase
        #: Every layer in running order, data sources included.
        self.order: list[Step | SourceStep] = plan.order
        self.steps: list[Step] = plan.steps
        self.sources: list[SourceStep] = plan.sources
        self.params: list[ParamRef] = plan.params
        self.outputs: list[str] = plan.outputs
        self.blob_shapes: dict[str, Shape] = plan.blob_shapes
        self.inputs: dict[str, Shape] = {
            top: shape
            for step in plan.sources
            for top, shape in zip(step.tops, step.top_shapes, strict=True)
        }
        self.loss_weights: dict[str, float] = {
            step.tops[index]: weight for step in plan.steps for index, weight in step.losses.items()
        }
        #: Keep every blob of the last forward pass in :attr:`blobs` (takes their memory).
        self.keep_blobs = False
        #: Run every layer of the prototxt by itself, as hooks on layers need it, no fused steps.
        self.literal = False
        self._head: tuple[list[Step], list[Step]] | None = None
        self._messages = [each.spec.message for each in plan.order]
        self._force_backward: bool = plan.message.force_backward
        self.ties: list[Tie] = plan.ties
        #: How images were prepared where the weights come from, by the name of the input there.
        self.recorded = {each.blob: each for each in plan.message.preprocessing}
        self._loss: Tensor | None = None
        self._blobs: dict[str, Tensor] = {}
        self._device = torch.device(device)
        self.execution = (execution or Execution()).resolved(self._device)
        for step in plan.steps:
            # Not add_module: a layer may be called as an attribute of the net is ("loss"). A dot
            # would part the names of modules.
            self._modules[self._module_name(step)] = step.layer
        if share_with is not None:
            self.share(share_with)
        self._materialize()
        self._prepare()
        self.train(self.phase == caffe_pb2.TRAIN)
        if weights is not None:
            self.load(weights)

    # -- running ---------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs and loss for ``inputs``; pure but for the layers' own statistics.

        The loss is a 0-d tensor: the sum over all tops of loss_weight times the top's sum.
        """
        blobs, loss = self._run(inputs, keep=False)
        return {name: blobs[name] for name in self.outputs}, loss

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The output blobs by name, for one tensor per input blob."""
        fed = {top for step in self.sources for top in step.tops}
        if inputs.keys() not in (self.inputs.keys(), fed):
            raise self._wrong_inputs(inputs)
        blobs, loss = self._run(inputs, keep=self.keep_blobs)
        if not torch.compiler.is_exporting():
            self._loss = loss
            self._blobs = blobs if self.keep_blobs else {}
        return {name: blobs[name] for name in self.outputs}

    def _run(self, inputs: Mapping[str, Tensor], keep: bool) -> tuple[dict[str, Tensor], Tensor]:
        self._fold_again()
        with self.execution.context(self._device):
            if self._compiled is None or keep or self.literal or torch.compiler.is_compiling():
                blobs, loss = self._run_steps(inputs, keep)
            else:
                blobs, loss = self._compiled(inputs, False)
        if self.execution.reduced:
            for name in self.outputs:
                blobs[name] = blobs[name].float()
        return blobs, loss

    def _run_steps(
        self, inputs: Mapping[str, Tensor], keep: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        blobs = {name: self.arranged(blob) for name, blob in inputs.items()}
        if self._force_backward:
            for name, blob in blobs.items():
                if blob.is_floating_point() and not blob.requires_grad and torch.is_grad_enabled():
                    blobs[name] = blob.detach().requires_grad_()
        loss_terms = run_steps(self._chosen_steps(inputs, keep), blobs, keep)
        return blobs, self._sum(loss_terms)

    def _chosen_steps(self, inputs: Mapping[str, Tensor], keep: bool) -> list[Step]:
        steps, fast, folded = self.steps, self._fast_steps, self._inference
        if self._head is not None and not self.inputs.keys() <= inputs.keys():
            (steps, fast), folded = self._head, None
        if keep or self.literal or torch.compiler.is_exporting():
            return steps  # an exported graph shows the layers of the prototxt
        compiling = torch.compiler.is_compiling()
        alone = self.execution.compile or not compiling
        if folded is not None and alone and not torch.is_grad_enabled():
            return folded.steps
        return steps if compiling else fast  # a compiler fuses by itself

    def _sum(self, terms: list[Tensor]) -> Tensor:
        if not terms:
            return torch.zeros((), device=self._device)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def _wrong_inputs(self, inputs: Mapping[str, Tensor]) -> ConfigError:
        missing = [name for name in self.inputs if name not in inputs]
        surplus = [name for name in inputs if name not in self.inputs]
        parts = [f"input {name!r} is missing" for name in missing]
        parts += [f"{name!r} is no input{nearest(name, self.inputs)}" for name in surplus]
        return ConfigError(
            f"net {self.name!r}: {'; '.join(parts)} (inputs: {', '.join(self.inputs)})"
        )

    @property
    def loss(self) -> Tensor:
        """The weighted loss of the last call; its ``backward()`` fills the gradients."""
        if self._loss is None:
            raise RuntimeError("the net has not been called yet")
        return self._loss

    @property
    def blobs(self) -> dict[str, Tensor]:
        """All blobs of the last call, if :attr:`keep_blobs` was set before it.

        A blob rewritten in place shows its final content.
        """
        if not self.keep_blobs:
            raise RuntimeError("set keep_blobs to True before calling the net")
        return self._blobs

    def __getstate__(self) -> dict[str, Any]:
        """For copies: all but what the last call left, which belongs to autograd's graph."""
        return {**self.__dict__, "_loss": None, "_blobs": {}, "_compiled": None, "_inference": None}

    @property
    def device(self) -> torch.device:
        """Where the parameters are and batches come to."""
        return self._device

    # -- data ------------------------------------------------------------------------------------

    def next_batch(self) -> dict[str, Tensor]:
        """The next batch of every data source, by blob name, on the net's device."""
        batch: dict[str, Tensor] = {}
        for step in self.sources:
            batch.update(zip(step.tops, step.source.next(self._device), strict=True))
        return batch

    def close(self) -> None:
        """End the data sources' threads and release their files."""
        for step in self.sources:
            step.source.close()

    # -- parameters ------------------------------------------------------------------------------

    def load(self, source: WeightsSource, fresh: Sequence[str] = ()) -> CopyReport:
        """Copy weights by layer name; several files (or a comma list) are applied in order.

        A file may be a .caffemodel, Caffe's HDF5, safetensors or a PyTorch state dict; a name such
        as ``zoo:lenet`` stands for published weights. Layers that a shell pattern of ``fresh``
        matches start anew. Raises WeightsError for other shapes or counts, or when nothing matches.
        """
        return weights.load(self, source, fresh)

    def layer_blobs(self) -> list[LayerBlobs]:
        """The parameter blobs of every layer that has some, as they are saved."""
        return weights.collect(self)

    def save(self, path: str | Path) -> None:
        """Write weights: a .caffemodel as Caffe writes it, or HDF5 (.h5), safetensors or PyTorch's
        format (.pth), as the name ends."""
        weights.save(self, path)

    def to_message(self) -> caffe_pb2.NetParameter:
        """The definition as built: layers of this phase only, in current form, without blobs.

        How the data layers prepare images is written down with it.
        """
        message = caffe_pb2.NetParameter()
        message.CopyFrom(self.definition)
        del message.layer[:]
        message.layer.extend(self._messages)
        try:
            known = self.preprocessing
        except DataError as error:
            logger.warning("how images are prepared is not stored: %s", error)
            known = {}
        if not any(step.source.delivers for step in self.sources):
            known = self.recorded | known
        if known:
            del message.preprocessing[:]
            message.preprocessing.extend(known.values())
        return message

    @property
    def preprocessing(self) -> dict[str, caffe_pb2.Preprocessing]:
        """How images become inputs, by the input's name, as far as it is known.

        A data layer says what it does itself. Of other inputs the weights that were loaded say what
        was done in training (:attr:`recorded`), else an Input layer's ``transform_param``.
        DataError if that names a mean file that cannot be read.
        """
        known: dict[str, caffe_pb2.Preprocessing] = {}
        for step in self.order:
            if not isinstance(step, SourceStep):
                continue
            blob = step.tops[0]
            own = step.source.preprocessing(blob) if step.source.delivers else None
            found = own or self.recorded.get(blob) or step.source.preprocessing(blob)
            if found is not None:
                known[blob] = found
        return known

    def layer(self, name: str) -> Step:
        """The step of the layer called ``name``."""
        for step in self.steps:
            if step.name == name:
                return step
        names = [step.name for step in self.steps]
        raise ConfigError(f"net {self.name!r} has no layer {name!r}{nearest(name, names)}")

    def _module_name(self, step: Step) -> str:
        """A name for the step's module: the layer's, but free of dots and not used before."""
        name = step.name.replace(".", "_")
        while name in self._modules:
            name += "_"
        return name

    def share(self, other: Net) -> None:
        """Use the parameters of the other net's layers of the same name.

        ConfigError if one of them has another shape there.
        """
        parameters.adopt(self.steps, other.steps)
        backward.mark(self.steps, self.inputs, self._force_backward)

    def mark_backward(self) -> None:
        """Find anew which layers gradients pass, after parameters were frozen or freed."""
        backward.mark(self.steps, self.inputs, self._force_backward)
        self._prepare()

    def _materialize(self) -> None:
        by_module: dict[nn.Module, list[Tie]] = {}
        for tie in self.ties:
            by_module.setdefault(tie.module, []).append(tie)
        for step in self.steps:
            for tie in by_module.get(step.layer, ()):
                tie.apply()  # its owner comes earlier and has its memory
            step.layer.materialize(self._device)

    def _prepare(self) -> None:
        """Choose the layout and the steps to run, from :attr:`execution`."""
        seen_otherwise = {id(t.owner) for t in self.ties if t.reshapes}
        setting = self.execution.memory_format
        self._channels_last = layout.chosen(
            setting, self.steps, self._device, self.execution.reduced
        )
        if self._channels_last:
            layout.arrange_weights(self.steps, seen_otherwise)
        self._fast_steps = self.optimized(self.steps, self.outputs)
        self._inference: Inference | None = None
        self._compiled = compiled(self._run_steps, self.execution)

    def optimized(self, steps: list[Step], outputs: Iterable[str]) -> list[Step]:
        """Some of the net's steps as they run where only ``outputs`` of their tops are wanted."""
        if not self.execution.optimize:
            return steps
        return passes.optimize(steps, outputs, self.execution.recompute)

    def run_from(self, sources: Sequence[SourceStep], left_out: Sequence[Step]) -> None:
        """Take batches from ``sources``, which bring the tops of the layers in ``left_out`` ready
        made: passes on them run the other layers only. Given all inputs the whole net runs."""
        self.sources = list(sources)
        self._head = None
        if left_out:
            gone = {id(step) for step in left_out}
            rest = [step for step in self.steps if id(step) not in gone]
            self._head = rest, self.optimized(rest, self.outputs)

    @property
    def running(self) -> list[Step]:
        """The layers that run on batches of :attr:`sources`."""
        return self.steps if self._head is None else self._head[0]

    def fold(self) -> None:
        """Make passes without gradients faster, at the cost of a second copy of the weights.

        Each BatchNorm goes into the convolution before it; on a CPU, products take their weights
        from oneDNN's own layout and compute the sum and the ReLU that follow. Weights that change
        later are noticed and folded again, unless they are written through NumPy or ``.data``.
        With gradients, or keep_blobs, the net runs as before.
        """
        self._prepare()
        if self.execution.optimize:
            layers = [step.layer for step in self.steps]
            on_cpu = self._device.type == "cpu" and self._channels_last
            self._inference = Inference(
                self._fast_steps, layers, self.outputs, self.execution, prepack=on_cpu
            )
            self._compiled = compiled(self._run_steps, self.execution, frozen=True)

    def _fold_again(self) -> None:
        """Fold anew if weights changed since; nothing to do where gradients are asked for."""
        if self._inference is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if not self._inference.watch.unchanged():
            self.fold()

    def arranged(self, blob: Tensor) -> Tensor:
        """``blob`` in the memory layout in which this net runs."""
        return layout.channels_last(blob) if self._channels_last else blob

    def _apply(self, fn: Any, recurse: bool = True) -> Net:
        """As torch's, which gives every tied buffer memory of its own; so tie them again."""
        super()._apply(fn, recurse)
        for tie in self.ties:
            tie.apply()
        tensors: Sequence[Tensor] = [*self.parameters(), *self.buffers()]
        if tensors:
            self._device = tensors[0].device
        if self._inference is not None:
            self.fold()
        return self
