"""Several labels a picture, from a data layer written in Python.

usage: python -m cortado.tools.pycaffe multilabel.py
"""

import json
import tempfile
from pathlib import Path

import caffe
import numpy as np
import shape_data
from caffe import layers as L
from caffe import params as P


def net(batch_size: int, seed: int) -> str:
    """Pictures to one score a shape."""
    n = caffe.NetSpec()
    settings = json.dumps({"batch_size": batch_size, "seed": seed})
    n.data, n.label = L.Python(module="shape_data", layer="ShapeData", ntop=2, param_str=settings)
    fill = {"type": "xavier"}
    n.conv1 = L.Convolution(n.data, num_output=16, kernel_size=5, weight_filler=fill)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.fc1 = L.InnerProduct(n.pool1, num_output=64, weight_filler=fill)
    n.relu2 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu2, num_output=len(shape_data.SHAPES), weight_filler=fill)
    n.loss = L.SigmoidCrossEntropyLoss(n.score, n.label)
    return str(n.to_proto())


def hamming_accuracy(test_net: caffe.Net, batches: int) -> float:
    """How many of the flags are right."""
    right = []
    for _ in range(batches):
        test_net.forward()
        found = test_net.blobs["score"].data > 0
        right.append((found == (test_net.blobs["label"].data > 0.5)).mean())
    return float(np.mean(right))


def main(folder: Path) -> None:
    (folder / "train.prototxt").write_text(net(32, 1))
    (folder / "test.prototxt").write_text(net(50, 2))
    (folder / "solver.prototxt").write_text(
        f'train_net: "{folder}/train.prototxt" test_net: "{folder}/test.prototxt" test_iter: 4 '
        'test_interval: 1000 test_initialization: false base_lr: 0.003 type: "Adam" momentum: 0.9 '
        'lr_policy: "fixed" max_iter: 200 random_seed: 1 snapshot_after_train: false'
    )
    solver = caffe.get_solver(str(folder / "solver.prototxt"))
    test_net = solver.test_nets[0]
    test_net.share_with(solver.net)
    print(f"before training: {hamming_accuracy(test_net, 4):.3f} of the labels are right")
    for _ in range(2):
        solver.step(100)
        print(f"iteration {solver.iter}: {hamming_accuracy(test_net, 4):.3f} are right")
    scores = test_net.blobs["score"].data[0]
    names = [name for name, score in zip(shape_data.SHAPES, scores, strict=True) if score > 0]
    print(f"the first picture shows: {', '.join(names) or 'nothing'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
