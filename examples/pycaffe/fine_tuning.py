"""Fine-tuning: what was learned on the digits 0 to 6 helps to learn 7 to 9 from a few examples.

usage: python -m cortado.tools.pycaffe fine_tuning.py
"""

import tempfile
from pathlib import Path

import caffe
import digits
import numpy as np
from caffe import layers as L
from caffe import params as P


def net(listing: str, batch_size: int, classes: int, score: str, learn_all: bool) -> str:
    """A small net; its last layer is called ``score``, and the others may stand still."""
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(source=listing, batch_size=batch_size, ntop=2)
    rates = [{"lr_mult": 1 if learn_all else 0}] * 2
    more = {"param": rates, "weight_filler": {"type": "xavier"}}
    n.conv1 = L.Convolution(n.data, num_output=32, kernel_size=3, pad=1, **more)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.fc1 = L.InnerProduct(n.pool1, num_output=100, **more)
    n.relu2 = L.ReLU(n.fc1, in_place=True)
    last = L.InnerProduct(n.relu2, num_output=classes, weight_filler={"type": "xavier"})
    n[score] = last
    n.accuracy = L.Accuracy(last, n.label)
    n.loss = L.SoftmaxWithLoss(last, n.label)
    return str(n.to_proto())


def solver_for(folder: Path, train: str, test: str, iterations: int) -> caffe.SGDSolver:
    (folder / "train.prototxt").write_text(train)
    (folder / "test.prototxt").write_text(test)
    (folder / "solver.prototxt").write_text(
        f'train_net: "{folder}/train.prototxt" test_net: "{folder}/test.prototxt" test_iter: 2 '
        "test_interval: 1000 test_initialization: false base_lr: 0.02 momentum: 0.9 "
        f'lr_policy: "fixed" max_iter: {iterations} random_seed: 1 snapshot_after_train: false'
    )
    return caffe.SGDSolver(str(folder / "solver.prototxt"))


def accuracy(solver: caffe.SGDSolver) -> float:
    return float(np.mean([solver.test_nets[0].forward()["accuracy"] for _ in range(2)]))


def main(folder: Path) -> None:
    known, new = np.arange(7), np.arange(7, 10)
    train, test = digits.write_split(folder / "known", known)
    first = solver_for(
        folder, net(train, 50, 7, "score", True), net(test, 100, 7, "score", True), 100
    )
    first.solve()
    first.net.save(str(folder / "known.caffemodel"))
    print(f"digits 0 to 6: accuracy {accuracy(first):.3f}")

    train, test = digits.write_split(folder / "new", new)
    definitions = net(train, 9, 3, "score_new", False), net(test, 45, 3, "score_new", False)
    tuned, scratch = solver_for(folder, *definitions, 30), solver_for(folder, *definitions, 30)
    tuned.net.copy_from(str(folder / "known.caffemodel"))
    curves: tuple[list[float], list[float]] = ([], [])
    for _ in range(6):
        for solver, curve in zip((tuned, scratch), curves, strict=True):
            solver.step(5)
            curve.append(accuracy(solver))
    print("digits 7 to 9, mean accuracy of the first 30 iterations:")
    print(f"  on what was learned from 0 to 6: {np.mean(curves[0]):.3f}")
    print(f"  on random filters: {np.mean(curves[1]):.3f}")
    moved = abs(tuned.net.params["fc1"][0].data - first.net.params["fc1"][0].data).max()
    print(f"fc1 has moved by {moved}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
