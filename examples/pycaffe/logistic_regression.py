"""Logistic regression on vectors from HDF5 files, then the same with a hidden layer.

usage: python -m cortado.tools.pycaffe logistic_regression.py
"""

import tempfile
from pathlib import Path

import caffe
import digits
import numpy as np
from caffe import layers as L


def made_up_vectors(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the plane with noise beside them, and whether they lie inside an ellipse."""
    random = np.random.RandomState(1)
    points = random.randn(count, 4).astype(np.float32)
    inside = points[:, 0] ** 2 + 2 * points[:, 1] ** 2 + 0.5 * points[:, 0] < 1.2
    return points, inside.astype(np.float32)


def net(listing: str, batch_size: int, hidden: int) -> str:
    """Logistic regression, or with ``hidden`` neurons before it."""
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(source=listing, batch_size=batch_size, ntop=2)
    bottom = n.data
    fill = {"type": "xavier"}
    if hidden:
        n.ip1 = L.InnerProduct(bottom, num_output=hidden, weight_filler=fill)
        n.relu1 = bottom = L.ReLU(n.ip1, in_place=True)
    n.score = L.InnerProduct(bottom, num_output=2, weight_filler=fill)
    n.accuracy = L.Accuracy(n.score, n.label)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return str(n.to_proto())


def train(folder: Path, train_list: str, test_list: str, hidden: int) -> float:
    """Train for a while; returns the accuracy on the test set."""
    (folder / "train.prototxt").write_text(net(train_list, 50, hidden))
    (folder / "test.prototxt").write_text(net(test_list, 100, hidden))
    (folder / "solver.prototxt").write_text(
        f'train_net: "{folder}/train.prototxt" test_net: "{folder}/test.prototxt" test_iter: 5 '
        'test_interval: 500 base_lr: 0.1 momentum: 0.9 weight_decay: 0.0005 lr_policy: "step" '
        "gamma: 0.1 stepsize: 300 max_iter: 400 random_seed: 1 snapshot_after_train: false"
    )
    solver = caffe.get_solver(str(folder / "solver.prototxt"))
    solver.solve()
    accuracy = 0.0
    for _ in range(5):
        accuracy += float(solver.test_nets[0].forward()["accuracy"]) / 5
    return accuracy


def main(folder: Path) -> None:
    data, label = made_up_vectors(2500)
    train_list = digits.write_hdf5(folder, "train", data[:2000], label[:2000])
    test_list = digits.write_hdf5(folder, "test", data[2000:], label[2000:])
    print(f"logistic regression: accuracy {train(folder, train_list, test_list, 0):.3f}")
    print(f"with a hidden layer: accuracy {train(folder, train_list, test_list, 20):.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
