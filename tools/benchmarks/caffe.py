"""A Caffe binary as a contender: its own ``caffe time`` of the same net."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ...proto.caffe_pb2 import NetParameter
from ...proto.errors import ConfigError
from ...proto.text import to_text
from .contenders import Course

NAME = "caffe"


class CaffeRunner:
    """Runs ``caffe time`` turn by turn, which measures forward and backward without the update.

    Its inputs are constants, so there is no loss to compare. ConfigError if it fails, say on a
    layer that Caffe does not have.
    """

    def __init__(self, binary: str, course: Course, threads: int = 0) -> None:
        self.name = NAME
        self.first: dict[str, Any] = {"loss": None}
        self._training = course.training
        self._folder = tempfile.TemporaryDirectory(prefix="cortado-caffe-")
        model = Path(self._folder.name) / "net.prototxt"
        model.write_text(to_text(with_constants(course.document().message)))
        self._command = [binary, "time", "-model", str(model), "-phase", course.phase]
        if course.device.startswith("cuda"):
            self._command += ["-gpu", course.device.partition(":")[2] or "0"]
        limits = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        self._environment = os.environ | dict.fromkeys(limits if threads else (), str(threads))

    def run(self, count: int) -> dict[str, Any]:
        """Milliseconds a step by its own average over ``count``; it does not tell its memory."""
        command = [*self._command, "-iterations", str(count)]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, env=self._environment, check=False
        )
        what = "Forward-Backward" if self._training else "Forward pass"
        line = re.search(rf"Average {what}: ([\d.e+]+) ms", done.stderr)
        if not line:
            raise ConfigError(f"bench: {command[0]} did not time the net: {done.stderr[-300:]}")
        return {"ms": float(line.group(1)), "peak": 0.0}

    def close(self) -> None:
        self._folder.cleanup()


def with_constants(net: NetParameter) -> NetParameter:
    """``net`` with DummyData in the place of its Input layers, as ``caffe time`` needs data."""
    for layer in net.layer:
        if layer.type == "Input":
            shapes = list(layer.input_param.shape)
            layer.ClearField("input_param")
            layer.type = "DummyData"
            layer.dummy_data_param.shape.extend(shapes)
    return net
