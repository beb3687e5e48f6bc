"""Write LeNet in Python and train it on digits, with a training loop of one's own.

usage: python -m cortado.tools.pycaffe learning_lenet.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import caffe
import digits
from caffe import layers as L
from caffe import params as P


def lenet(listing: str, batch_size: int) -> str:
    """The net for the digits in a list of HDF5 files, as prototxt."""
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(source=listing, batch_size=batch_size, shuffle=True, ntop=2)
    fill = {"type": "xavier"}
    n.conv1 = L.Convolution(n.data, kernel_size=3, pad=1, num_output=20, weight_filler=fill)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=3, pad=1, num_output=50, weight_filler=fill)
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool2, num_output=100, weight_filler=fill)
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, weight_filler=fill)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return str(n.to_proto())


def main(folder: Path) -> None:
    train, test = digits.write_split(folder)
    (folder / "train.prototxt").write_text(lenet(train, 50))
    (folder / "test.prototxt").write_text(lenet(test, 99))
    (folder / "solver.prototxt").write_text(
        f'train_net: "{folder}/train.prototxt" test_net: "{folder}/test.prototxt" test_iter: 3 '
        "test_interval: 1000 test_initialization: false base_lr: 0.03 momentum: 0.9 "
        'weight_decay: 0.0005 lr_policy: "inv" gamma: 0.001 power: 0.75 '
        "max_iter: 120 random_seed: 1 snapshot_after_train: false"
    )
    caffe.set_mode_cpu()
    solver = caffe.SGDSolver(str(folder / "solver.prototxt"))
    net, test_net = solver.net, solver.test_nets[0]

    solver.net.forward()
    print(f"loss before training: {float(net.blobs['loss'].data):.3f}")
    for iteration in range(120):
        solver.step(1)
        if iteration % 40 == 39:
            right = total = 0
            for _ in range(3):
                test_net.forward()
                found = test_net.blobs["score"].data.argmax(1)
                right += int((found == test_net.blobs["label"].data).sum())
                total += len(found)
            loss = float(net.blobs["loss"].data)
            print(f"iteration {solver.iter}: loss {loss:.3f}, accuracy {right / total:.3f}")
    update = net.params["conv1"][0].diff
    print(f"the last update of conv1 changed no filter by more than {abs(update).max():.5f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
