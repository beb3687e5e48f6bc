"""Classify an image with CaffeNet, and look into the net.

usage: python -m cortado.tools.pycaffe classification.py [WEIGHTS.caffemodel [IMAGE]]

Without weights the net is filled at random, so that its classes mean nothing; without an image a
made-up one is shown to it.
"""

import sys
import tempfile
from pathlib import Path

import caffe
import numpy as np

from cortado.netdef.deploy import deploy
from cortado.proto.files import read_net

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = ROOT / "model_zoo" / "bvlc_reference_caffenet" / "net.prototxt"
#: The mean of ImageNet's training images: blue, green, red.
MEAN = np.array([104.0, 117.0, 123.0])


def made_up_image() -> np.ndarray:
    """A ramp of colours with a bright disc, (256, 256, 3) from 0 to 1."""
    y, x = np.mgrid[:256, :256] / 255
    disc = (np.hypot(y - 0.4, x - 0.6) < 0.2)[..., None]
    return np.where(disc, 1.0, np.dstack([x, y, 1 - x])).astype(np.float32)


def deploy_file(folder: Path) -> str:
    """The path of CaffeNet's definition for use, as ``cortado deploy`` prints it."""
    path = folder / "deploy.prototxt"
    path.write_text(str(deploy(read_net(DEFINITION), {"data": (1, 3, 227, 227)})))
    return str(path)


def main(weights: str | None = None, image_file: str | None = None) -> None:
    caffe.set_mode_cpu()
    caffe.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        net = caffe.Net(deploy_file(Path(folder)), caffe.TEST, weights=weights)
    print("blobs:")
    for name, blob in net.blobs.items():
        print(f"  {name:8} {blob.data.shape}")
    print("weights and biases:")
    for name, blobs in net.params.items():
        print(f"  {name:8} {' '.join(str(blob.data.shape) for blob in blobs)}")

    transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
    transformer.set_transpose("data", (2, 0, 1))  # channels first
    transformer.set_mean("data", MEAN)
    transformer.set_raw_scale("data", 255)  # from 0..1
    transformer.set_channel_swap("data", (2, 1, 0))  # RGB to BGR
    image = caffe.io.load_image(image_file) if image_file else made_up_image()

    net.blobs["data"].reshape(2, 3, 227, 227)  # two images a batch
    net.blobs["data"].data[...] = transformer.preprocess("data", image)
    net.blobs["data"].data[1] = net.blobs["data"].data[1, :, :, ::-1]  # the second one mirrored
    timer = caffe.Timer()
    timer.start()
    output = net.forward()
    timer.stop()

    probabilities = output["prob"]
    best = probabilities[0].argsort()[::-1][:5]
    print(f"forward of 2 images: {timer.ms:.0f} ms")
    print("five best classes:", ", ".join(f"{i} ({probabilities[0, i]:.4f})" for i in best))
    print("sum of the probabilities: {:.3f} {:.3f}".format(*probabilities.sum(1)))
    active = (net.blobs["conv5"].data[0] > 0).mean()
    print(f"conv5: {active:.0%} of its values are positive")


if __name__ == "__main__":
    main(*sys.argv[1:])
