"""TensorBoard: scalars, histograms, pictures, sound, graph and texts of a run, as event files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ...netdef import Net
from ...proto.caffe_pb2 import SolverParameter, TensorBoardParameter
from ...proto.errors import ConfigError, nearest
from ...proto.text import to_text
from .. import events
from . import pictures
from .base import Hook

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..loop import Iteration
    from ..solver import Solver


class TensorBoard(Hook):
    """Writes what the run's events say, and at intervals what only the net knows.

    Scalars come with the events that carry them (``display``, tests), so that nothing waits for the
    device because of them. Histograms of weights and gradients and pictures of the input, the
    first filters and the activations of convolutions wait, but only at their intervals; they are
    taken from the iteration itself, which they do not change.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(self, message: TensorBoardParameter) -> None:
        self.message = message
        self._writer: SummaryWriter | None = None
        self._listening = False
        self._captured: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._scores: dict[str, float] = {}

    # -- the run -----------------------------------------------------------------------------------

    def before_train(self, solver: Solver) -> None:
        self._check_audio(solver.net)
        if self._writer is None:
            self._writer = _open(self.message.folder, solver.iteration)
            if not self._listening:
                solver.listeners.append(self.take)
                self._listening = True
                self._describe(solver)

    def before_step(self, solver: Solver) -> None:
        if _due(self.message.image_interval, solver.iteration):
            self._handles = [
                step.layer.register_forward_hook(self._keeper(step.name, step.tops))
                for step in solver.net.steps
                if step.type in pictures.ACTIVATIONS or set(step.tops) & set(self.message.audio)
            ]

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles = []
            self._write_images(solver.net, iteration)
            self._captured.clear()

    def before_update(self, solver: Solver, iteration: Iteration) -> None:
        if self._writer is None or not _due(self.message.histogram_interval, iteration.number):
            return
        for param in solver.net.params:
            if param.learnable:
                tensor = param.tensor.detach()
                self._writer.add_histogram(f"weights/{param.name}", tensor, iteration.number)
                if param.tensor.grad is not None:
                    gradient = param.tensor.grad
                    self._writer.add_histogram(
                        f"gradients/{param.name}", gradient, iteration.number
                    )

    def finish(self, solver: Solver) -> None:
        if self._writer is not None and self._scores:
            settings = {**_settings(solver.parameters), "batch": _batch(solver.net)}
            metrics = {f"final/{name}": value for name, value in self._scores.items()}
            self._writer.add_hparams(settings, metrics, run_name=".")

    def close(self, solver: Solver) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # -- events ------------------------------------------------------------------------------------

    def take(self, event: events.Event) -> None:
        """Write the numbers of an event; a listener of solver events."""
        match event:
            case events.Displayed(iteration=step, loss=loss, rate=rate, outputs=outputs):
                self._scalar("train/smoothed_loss", loss, step)
                self._scalar("train/iterations_per_second", rate, step)
                self._outputs("train", outputs, step)
            case events.RateDisplayed(iteration=step, rate=rate):
                self._scalar("train/learning_rate", rate, step)
            case events.FinalLoss(iteration=step, loss=loss):
                self._scalar("train/smoothed_loss", loss, step)
            case events.TestFinished(iteration=step, index=index, outputs=outputs, weights=which):
                kind = f"test{index}" + (f"_{which}" if which else "")
                self._outputs(kind, outputs, step)

    def _outputs(self, kind: str, outputs: tuple[events.Output, ...], step: int) -> None:
        count = Counter(output.blob for output in outputs)
        seen: Counter[str] = Counter()
        for output in outputs:
            name = output.blob
            if count[name] > 1:
                name += f"/{seen[output.blob]}"
                seen[output.blob] += 1
            self._scalar(f"{kind}/{name}", output.value, step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(tag, value, step)
            self._scores[tag] = value

    # -- what the net holds ------------------------------------------------------------------------

    def _keeper(self, name: str, tops: tuple[str, ...]) -> Any:
        """A forward hook that keeps the layer's tops, and under the layer's name the first."""

        def keep(module: Any, inputs: Any, result: Any) -> None:
            found = (result,) if isinstance(result, Tensor) else tuple(result)
            self._captured.update(
                (top, value.detach().clone()) for top, value in zip(tops, found, strict=True)
            )
            self._captured[f"layer {name}"] = found[0].detach().clone()

        return keep

    def _write_images(self, net: Net, iteration: Iteration) -> None:
        writer, step = self._writer, iteration.number
        if writer is None:
            return
        for blob, values in iteration.batch.items():
            if pictures.is_image(values):
                writer.add_image(f"input/{blob}", pictures.batch(values), step)
        filters = pictures.first_filters(net)
        if filters is not None:
            writer.add_image(f"filters/{filters[0]}", pictures.batch(filters[1]), step)
        for name, values in self._captured.items():
            layer = name.removeprefix("layer ")
            if layer != name and values.dim() == 4:
                writer.add_image(f"activations/{layer}", pictures.channels(values[0]), step)
        for blob in self.message.audio:
            sound = self._captured.get(blob, iteration.batch.get(blob))
            if sound is not None:
                wave = pictures.wave(sound[0])
                writer.add_audio(f"audio/{blob}", wave, step, self.message.sample_rate)

    def _describe(self, solver: Solver) -> None:
        assert self._writer is not None
        for title, message in (("solver", solver.parameters), ("net", solver.net.to_message())):
            text = to_text(message).replace("\n", "\n    ")
            self._writer.add_text(title, f"    {text}", solver.iteration)
        file_writer = self._writer.file_writer
        if file_writer is not None:
            file_writer.add_graph(pictures.graph(solver.net))

    def _check_audio(self, net: Net) -> None:
        for blob in self.message.audio:
            if blob not in net.blob_shapes:
                raise ConfigError(
                    f"tensorboard.audio: the net has no blob {blob!r}"
                    f"{nearest(blob, net.blob_shapes)}"
                )


def _open(folder: str, iteration: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "TensorBoard's event files need the package tensorboard: "
            "pip install 'cortado[tensorboard]'"
        ) from None
    return SummaryWriter(folder, purge_step=iteration if iteration else None)


def _due(interval: int, iteration: int) -> bool:
    return interval > 0 and iteration % interval == 0


def _settings(solver: SolverParameter) -> dict[str, float | int | str | bool]:
    """The solver's plain fields that were set, but for names of files and what is only shown."""
    fields: dict[str, float | int | str | bool] = {}
    for field, value in solver.ListFields():
        if isinstance(value, float | int | str | bool) and field.name not in (
            "net", "train_net", "snapshot_prefix", "display", "snapshot",
        ):  # fmt: skip
            fields[field.name] = value
    return fields


def _batch(net: Net) -> int:
    shapes = [step.top_shapes[0] for step in net.sources if step.top_shapes]
    return shapes[0][0] if shapes and shapes[0] else 0
