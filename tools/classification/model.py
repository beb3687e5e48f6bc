"""A trained net that names images: opened from whatever names it, with its own preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...layers.data.preprocessing import BGR, CENTRE, ImageSource, Preprocessing, Views
from ...layers.data.transform import Picture
from ...netdef import Net
from ...netdef import weights as weights_files
from ...netdef.deploy import outputs
from ...netdef.execution import Execution
from ...proto import preprocessing as records
from ...proto.caffe_pb2 import NetParameter
from ...proto.errors import ConfigError, DataError, WeightsError
from ...proto.weights import Weights
from . import contradictions
from .definition import Definition, FirstImage, Wish, define
from .names import found_names
from .overrides import Overrides

if TYPE_CHECKING:
    from ...proto.blocks import Settings

logger = logging.getLogger(__name__)

#: Images that go through the net at once.
BATCH = 50


@dataclass(slots=True)
class Scores:
    """What a net gave for a batch: ``probabilities`` (images, classes), and before the softmax
    ``logits``, where there is one and an image has one view."""

    probabilities: Tensor
    logits: Tensor | None

    @property
    def ranking(self) -> Tensor:
        """What decides which class is better: the softmax may make different values equal."""
        return self.probabilities if self.logits is None else self.logits


class Model:
    """A net for use with what belongs to it. Made by :func:`open_model`.

    ``preprocessing`` turns images into its input; ``origin`` says where it is from. ``names`` are
    those of the classes.
    """

    def __init__(
        self,
        definition: Definition,
        net: Net,
        scores: str,
        softmax: bool,
        preprocessing: Preprocessing,
        origin: str,
        names: list[str],
    ) -> None:
        self.name = definition.name
        self.weights = definition.weights
        self.record_order = definition.record_order
        self.net = net
        self.preprocessing = preprocessing
        self.origin = origin
        self.names = names
        self._scores = scores
        self._softmax = softmax
        self._image = definition.image
        self.batch: int = net.inputs[self._image][0]

    def classify(
        self, images: Sequence[ImageSource], views: Views = CENTRE, order: str = BGR
    ) -> Tensor:
        """Probabilities (images, classes) of image files, their bytes, or arrays (height, width,
        channels) from 0 to 255 with channels in ``order``; the mean over the ``views`` of each.

        DataError, with its name, for an image that cannot be read or does not fit.
        """
        size = max(1, self.batch // views.count)
        parts = []
        for start in range(0, len(images), size):
            inputs = [
                self.preprocessing.views(each, views, order)
                for each in images[start : start + size]
            ]
            parts.append(self.scores(torch.stack(inputs)).probabilities)
        return torch.cat(parts) if parts else torch.empty(0, len(self.names))

    @torch.no_grad()
    def scores(self, inputs: Tensor) -> Scores:
        """What the net gives for prepared inputs (images, views, channels, height, width)."""
        count, views = inputs.shape[:2]
        given = torch.cat([self._run(part) for part in inputs.flatten(0, 1).split(self.batch)])
        probabilities = given.softmax(1) if self._softmax else given
        if views > 1:
            return Scores(probabilities.view(count, views, -1).mean(1), None)
        return Scores(probabilities, given if self._softmax else None)

    def _run(self, inputs: Tensor) -> Tensor:
        """One pass. The net is built for a fixed number of images; what is missing is zeros."""
        count = len(inputs)
        if count < self.batch:
            inputs = torch.cat([inputs, inputs.new_zeros(self.batch - count, *inputs.shape[1:])])
        given, _ = self.net.run({self._image: inputs.to(self.net.device)})
        return given[self._scores].flatten(1)[:count].float().cpu()

    def close(self) -> None:
        """Release what the net holds."""
        self.net.close()


def open_model(
    model: str,
    weights: str = "",
    *,
    overrides: Overrides | None = None,
    settings: Settings | None = None,
    stages: Sequence[str] = (),
    stored: bool = False,
    first_image: FirstImage | None = None,
    labels: str = "",
    output: str = "",
    batch: int = BATCH,
    device: str = "cpu",
    execution: Execution | None = None,
) -> Model:
    """The classifier that ``model`` names: a model of the zoo, a prototxt or a .caffemodel.

    ``weights`` is a file or a name such as zoo:lenet; by default the zoo's own or the snapshot's.
    Images are prepared as ``overrides`` say, else as the data layer of a prototxt does, else as the
    weights recorded in training, else as the zoo or the Input layer says; where two of these differ
    a warning says so. ``settings`` are variables of a prototxt, ``stages`` those of its state;
    ``labels`` a file with the names of the classes. Images are ``stored`` in a database or come as
    files; ``first_image`` tells the shape of the first for a net whose data layer leaves that to
    its data. ConfigError, SnapshotError or DataError for what does not fit together.
    """
    overrides = overrides or Overrides()
    wish = Wish(model, weights, settings, stages, overrides, stored)
    definition = define(wish, first_image or _unknown)
    scores = _output(definition, output)
    softmax = without_softmax(definition.net, scores)
    if softmax:
        scores = softmax
    _set_input(definition, batch, overrides)
    net = Net(definition.net, "TEST", device=device, execution=execution)
    report = net.load(_weights(definition, net))
    if report.untouched:
        logger.warning(
            "%s has no weights for %s: these are as initialised",
            report.source, ", ".join(report.untouched),
        )  # fmt: skip
    net.fold()
    record, origin = _record(definition, net, overrides)
    shape = net.blob_shapes[scores]
    classes = shape[1] if len(shape) > 1 else 0
    if torch.Size(shape).numel() != batch * classes:
        raise ConfigError(
            f"{definition.name}: blob {scores!r} must have one score a class for each image, "
            f"but is {'x'.join(map(str, shape))}"
        )
    places = [Path(each).parent for each in (model, definition.weights) if each]
    names = found_names(labels, classes, definition.classes, places)
    return Model(
        definition, net, scores, bool(softmax), Preprocessing.from_message(record), origin, names
    )


def _weights(definition: Definition, net: Net) -> Weights:
    """The weights; a state dict may have our names, or those that the zoo has rules for."""
    source = definition.weights
    assert source is not None
    plain = weights_files.read(source, net.steps)
    if definition.rules is None:
        return plain
    wanted = {step.name for step in net.steps if step.layer.blobs}
    if wanted <= {layer.name for layer in plain}:
        return plain
    try:
        renamed = weights_files.read(source, net.steps, definition.rules)
    except WeightsError:
        return plain
    return max(plain, renamed, key=lambda found: len(wanted & {layer.name for layer in found}))


def _unknown() -> Picture:
    raise ConfigError(
        "the size of the images is not known: the net's data layer leaves it to its data; name a "
        "snapshot, which records it, or a net with an Input layer"
    )


def _output(definition: Definition, wanted: str) -> str:
    """The blob that has the probabilities or scores."""
    found = outputs(definition.net.layer)
    if wanted:
        known = {top for layer in definition.net.layer for top in layer.top}
        if wanted not in known:
            raise ConfigError(f"--output {wanted}: net has no such blob (it gives {found})")
        if wanted not in found:
            raise ConfigError(f"--output {wanted}: other layers read it (the net gives {found})")
        return wanted
    if len(found) != 1:
        raise ConfigError(
            f"{definition.name}: gives {', '.join(found) or 'nothing'}; choose with --output BLOB"
        )
    return found[0]


def without_softmax(net: NetParameter, output: str) -> str:
    """Take the Softmax that makes ``output`` away, so that its input is what the net gives.

    That blob, or an empty string where there is no such layer or others read its input.
    """
    makers = [layer for layer in net.layer if output in layer.top]
    last = makers[-1] if makers else None
    if last is None or last.type != "Softmax" or last.softmax_param.axis not in (1, -1):
        return ""
    scores = last.bottom[0]
    if any(scores in layer.bottom for layer in net.layer if layer is not last):
        return ""
    net.layer.remove(last)
    return scores


def _set_input(definition: Definition, batch: int, overrides: Overrides) -> None:
    """Let the net take ``batch`` images at once."""
    for layer in definition.net.layer:
        if layer.type == "Input" and definition.image in layer.top:
            overrides.silence(layer)
            for shape in layer.input_param.shape:
                if len(shape.dim) != 4:
                    raise ConfigError(
                        f"{definition.name}: the input {definition.image!r} must be images (number "
                        f"x channels x height x width), but is {'x'.join(map(str, shape.dim))}"
                    )
                shape.dim[0] = batch


def _record(
    definition: Definition, net: Net, overrides: Overrides
) -> tuple[records.Preprocessing, str]:
    """How images are prepared, and who says so; what contradicts that is logged."""
    blob = definition.image
    candidates = list(definition.known)
    if blob in net.recorded:
        candidates.insert(definition.certain, (contradictions.WEIGHTS, net.recorded[blob]))
    if not definition.known and (note := _note(net, needed=not candidates)) is not None:
        candidates.append(("the Input layer", note))
    shape = net.inputs[blob][1:]
    if candidates:
        origin, record = candidates[0]
        contradictions.report(candidates[0], candidates[1:])
    else:
        origin, record = "nobody", _plain(blob, shape)
        if overrides.is_empty:
            logger.warning(
                "neither the net nor its weights say how images are prepared: they become "
                "%s without mean or scale (see --mean, --scale)", "x".join(map(str, shape)),
            )  # fmt: skip
    chosen = overrides.apply(record, shape)
    if not overrides.is_empty:
        contradictions.report(("the flags", chosen), [(origin, record)] if candidates else [])
        origin = f"{origin} and the flags" if candidates else "the flags"
    found = (chosen.channels, chosen.height, chosen.width)
    if found != tuple(shape):
        raise ConfigError(
            f"{definition.name}: takes images of {'x'.join(map(str, shape))}; the preprocessing "
            f"(from {origin}) makes them {'x'.join(map(str, found))} (see --crop, --resize)"
        )
    return chosen, origin


def _note(net: Net, needed: bool) -> records.Preprocessing | None:
    """What the Input layer says; unless it is ``needed`` its mean file may be missing."""
    (step,) = net.sources
    try:
        return step.source.preprocessing(step.tops[0])
    except DataError:
        if needed:
            raise
        return None


def _plain(blob: str, shape: Sequence[int]) -> records.Preprocessing:
    """Nothing but bringing images to the size of the input."""
    channels, height, width = shape
    order = {1: "GRAY", 3: "BGR"}.get(channels, "")
    return records.Preprocessing(
        blob=blob, channels=channels, height=height, width=width, channel_order=order,
        image_height=height, image_width=width,
    )  # fmt: skip
