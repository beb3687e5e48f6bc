"""Fit a line with a loss that is written in Python: outliers do not pull it away.

usage: python -m cortado.tools.pycaffe python_loss.py
"""

import tempfile
from pathlib import Path

import caffe
import digits
import numpy as np
from caffe import layers as L


def fit(folder: Path, listing: str, robust: bool) -> tuple[float, float]:
    """Slope and offset of the line that fits best."""
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(source=listing, batch_size=100, ntop=2)
    n.line = L.InnerProduct(n.data, num_output=1)
    n.loss = (
        L.Python(n.line, n.label, module="absolute_loss", layer="AbsoluteLoss", loss_weight=1)
        if robust
        else L.EuclideanLoss(n.line, n.label)
    )
    (folder / "net.prototxt").write_text(str(n.to_proto()))
    (folder / "solver.prototxt").write_text(
        f'train_net: "{folder}/net.prototxt" base_lr: 0.1 lr_policy: "poly" power: 1 '
        "max_iter: 300 snapshot_after_train: false"
    )
    solver = caffe.SGDSolver(str(folder / "solver.prototxt"))
    solver.solve()
    slope, offset = (float(blob.data.ravel()[0]) for blob in solver.net.params["line"])
    return slope, offset


def main(folder: Path) -> None:
    random = np.random.RandomState(0)
    x = random.uniform(-1, 1, (100, 1)).astype(np.float32)
    y = 2 * x + 0.5 + 0.05 * random.randn(100, 1).astype(np.float32)
    y[:10] += 8  # outliers
    listing = digits.write_hdf5(folder, "line", x, y)
    print("the truth: slope 2.00, offset 0.50")
    print("squares: slope {:.2f}, offset {:.2f}".format(*fit(folder, listing, robust=False)))
    print("absolute: slope {:.2f}, offset {:.2f}".format(*fit(folder, listing, robust=True)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
