"""Others that users take for inference: torchvision's model, and OpenCV with Caffe's files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...model_zoo import index
from ...netdef import Net
from ...proto.errors import ConfigError
from ...proto.text import to_text
from . import nets

if TYPE_CHECKING:
    from .contenders import Course

#: Models of torchvision that resemble one of ours, besides those that are the same.
_ALIKE = {"bvlc_alexnet": "alexnet", "bvlc_googlenet": "googlenet", "resnet50_caffe": "resnet50"}
PEERS = ("torchvision", "torchvision-tuned", "opencv")


def missing(name: str, course: Course) -> str:
    """Why the peer called ``name`` cannot run ``course``; nothing if it can."""
    if name not in PEERS:
        return ""
    if course.training or course.device != "cpu":
        return "only raced in inference on the CPU"
    if name == "opencv":
        import cv2

        if course.precision != "FP32":
            return "computes in FP32"
        return "" if hasattr(cv2.dnn, "readNetFromCaffe") else f"{cv2.__version__} reads no Caffe"
    return "" if _torchvision_name(course.net) else "has no such model"


def _torchvision_name(net: str) -> str:
    if net in _ALIKE or Path(net).is_file():
        return _ALIKE.get(net, "")
    return index.find(net).torchvision


class Torchvision:
    """The model of torchvision of the same or a like architecture, in eval mode, random weights.

    Its images are of its own usual size. ``tuned``: channels-last, and autocast where the precision
    asks for it.
    """

    def __init__(self, course: Course, tuned: bool) -> None:
        import torchvision

        from .contenders import autocast

        name = _torchvision_name(course.net)
        options: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "init_weights": False}
        torch.manual_seed(1)
        self.model = torchvision.models.get_model(name, **options).eval()
        size = 299 if name == "inception_v3" else 224
        images = nets.images(course.document())
        self.batch = torch.randn(images, 3, size, size)
        if tuned:
            self.model.to(memory_format=torch.channels_last)
            self.batch = self.batch.contiguous(memory_format=torch.channels_last)
        self.autocast = autocast(course, tuned)

    def run(self, count: int) -> None:
        with torch.inference_mode(), self.autocast():
            for _ in range(count):
                self.model(self.batch)

    def loss(self) -> None:
        """It is another net, with other weights: nothing to compare."""
        return None


class OpenCV:
    """OpenCV's dnn module with the prototxt and the caffemodel of the same net."""

    def __init__(self, course: Course) -> None:
        import cv2

        torch.manual_seed(1)
        net = nets.ready(Net(course.document(), "TEST"))
        with tempfile.TemporaryDirectory() as folder:
            definition, weights = Path(folder, "net.prototxt"), Path(folder, "net.caffemodel")
            definition.write_text(to_text(net.to_message()))
            net.save(weights)
            reader: Any = cv2.dnn  # version 5 has no reader for Caffe's files, nor its stub
            self.net = reader.readNetFromCaffe(str(definition), str(weights))
        # As OpenCV knows nothing of torch's threads.
        cv2.setNumThreads(torch.get_num_threads())
        batch = nets.fixed_batch(net)
        if len(batch) != 1:
            raise ConfigError("bench: OpenCV is raced with nets of one input")
        ((self.input, images),) = batch.items()
        self.images = images.numpy()
        self.output = net.outputs[0]

    def run(self, count: int) -> None:
        for _ in range(count):
            self._forward()

    def _forward(self) -> np.ndarray[Any, Any]:
        self.net.setInput(self.images, self.input)
        found: np.ndarray[Any, Any] = self.net.forward(self.output)
        return found

    def loss(self) -> float:
        return nets.fingerprint(torch.from_numpy(self._forward()))
