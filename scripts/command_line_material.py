"""What the command lines of docs/command_line.md work on, beside scikit-learn's digits."""

from __future__ import annotations

import functools
import gzip
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from google.protobuf import text_format
from sklearn.datasets import load_digits

from cortado.proto.caffe_pb2 import NetParameter

OLD_NET = """\
name: "old"
input: "data" input_dim: 1 input_dim: 1 input_dim: 8 input_dim: 8
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 blobs_lr: 2
  inner_product_param { num_output: 10 } }
"""
OLD_SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" solver_type: NESTEROV\n'
BLOCKS = """\
with { width: 16 }
block {
  name: "unit" bottom: "x" top: "y"
  layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
    convolution_param { num_output: $width kernel_size: 3 pad: 1 } }
  layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
}
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 32, 32] } } }
repeat {
  with { unit: [a..c] }
  layer { name: "unit_$unit" type: "unit" }
}
"""
WINDOWS = """\
filename,ymin,xmin,ymax,xmax
../images/3/0003.png,0,0,8,8
../images/3/0013.png,1,1,7,7
"""
WEIGHTS = b"these stand for weights"


def write(folder: Path, address: str) -> None:
    """Write everything to ``folder``; what is downloaded comes from ``address``."""
    (folder / "old_net.prototxt").write_text(OLD_NET)
    (folder / "old_solver.prototxt").write_text(OLD_SOLVER)
    (folder / "blocks.prototxt").write_text(BLOCKS)
    (folder / "windows.csv").write_text(WINDOWS)
    old = text_format.Parse(OLD_NET, NetParameter())
    (folder / "old_net.caffemodel").write_bytes(old.SerializeToString())
    _write_idx_files(folder / "idx_files")
    model = folder / "model"
    model.mkdir()
    (model / "readme.md").write_text(
        f"---\ncaffemodel: digits.caffemodel\ncaffemodel_url: {address}/digits.caffemodel\n"
        f"sha1: {hashlib.sha1(WEIGHTS, usedforsecurity=False).hexdigest()}\n---\n"
    )


def _write_idx_files(folder: Path) -> None:
    """The digits at 28 x 28 pixels under the names of MNIST's files."""
    folder.mkdir()
    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.stack([cv2.resize(image, (28, 28)) for image in grey])
    labels = digits.target.astype(np.uint8)
    for name, part in (("train", slice(0, 1500)), ("t10k", slice(1500, None))):
        for what, values in (("images-idx3", pixels[part]), ("labels-idx1", labels[part])):
            head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
            path = folder / f"{name}-{what}-ubyte.gz"
            path.write_bytes(gzip.compress(head + values.tobytes()))


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address on this machine at which the weights are served, out of ``folder``."""
    folder.mkdir()
    (folder / "digits.caffemodel").write_bytes(WEIGHTS)
    handler = functools.partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
