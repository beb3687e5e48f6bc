"""Change a net from outside: set filters by hand, and make a classifier run over a whole image.

usage: python -m cortado.tools.pycaffe net_surgery.py
"""

import tempfile
from pathlib import Path

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P


def classifier(fully_convolutional: bool, size: int) -> str:
    """A small classifier; its inner products may be written as convolutions."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, size, size]})
    fill = {"type": "xavier"}
    n.conv1 = L.Convolution(n.data, num_output=6, kernel_size=5, weight_filler=fill)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    if fully_convolutional:
        n.fc2_conv = L.Convolution(n.pool1, num_output=12, kernel_size=6)
        n.relu2 = L.ReLU(n.fc2_conv, in_place=True)
        n.fc3_conv = L.Convolution(n.relu2, num_output=4, kernel_size=1)
        n.prob = L.Softmax(n.fc3_conv)
    else:
        n.fc2 = L.InnerProduct(n.pool1, num_output=12, weight_filler=fill)
        n.relu2 = L.ReLU(n.fc2, in_place=True)
        n.fc3 = L.InnerProduct(n.relu2, num_output=4, weight_filler=fill)
        n.prob = L.Softmax(n.fc3)
    return str(n.to_proto())


def main(folder: Path) -> None:
    caffe.set_random_seed(0)
    (folder / "small.prototxt").write_text(classifier(False, 16))
    (folder / "full.prototxt").write_text(classifier(True, 16))
    net = caffe.Net(str(folder / "small.prototxt"), caffe.TEST)
    image = np.random.RandomState(0).rand(40, 40).astype(np.float32)

    # A filter set by hand: the average of its window.
    net.params["conv1"][0].data[0] = 1 / 25
    net.params["conv1"][1].data[0] = 0
    net.blobs["data"].data[...] = image[:16, :16]
    net.forward()
    by_hand = image[:5, :5].mean()
    print(f"filter 0 averages: {net.blobs['conv1'].data[0, 0, 0, 0]:.5f} is {by_hand:.5f}")

    # The inner products' weights, seen as filters, go to the convolutions.
    net.save(str(folder / "small.caffemodel"))
    full = caffe.Net(
        str(folder / "full.prototxt"), caffe.TEST, weights=str(folder / "small.caffemodel")
    )
    for old, new in (("fc2", "fc2_conv"), ("fc3", "fc3_conv")):
        for source, target in zip(net.params[old], full.params[new], strict=True):
            target.data.flat = source.data.flat

    # On the small image both agree; on the large one there is a score for every place.
    small = net.forward(data=image[None, None, :16, :16])["prob"].ravel()
    same = full.forward(data=image[None, None, :16, :16])["prob"].ravel()
    print(f"largest difference on the small image: {abs(small - same).max():.1e}")
    full.blobs["data"].reshape(1, 1, 40, 40)
    full.blobs["data"].data[...] = image
    scores = full.forward()["prob"]
    print(f"scores of the large image: {scores.shape}")
    window = net.forward(data=image[None, None, 8:24, 4:20])["prob"].ravel()
    print(f"largest difference at one place: {abs(scores[0, :, 4, 2] - window).max():.1e}")

    # An activation replaced between two layers.
    net.blobs["pool1"].data[...] = 0
    net.forward(start="fc2")
    print(f"with pool1 silenced: {np.round(net.blobs['prob'].data.ravel(), 3)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
