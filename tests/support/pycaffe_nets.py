"""Small nets in files, for tests of the Python interface."""

from __future__ import annotations

from pathlib import Path

#: Two inner products with a ReLU in place between them, and a loss.
TWO_LAYERS = """
name: "two" {more}
layer {{ name: "data" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 4 dim: 3 }} shape {{ dim: 4 }} }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "gaussian" std: 1 }}
    bias_filler {{ type: "constant" value: 0.1 }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""

#: The same with labels and random data of its own, for solvers.
SELF_FED = TWO_LAYERS.replace(
    """type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 4 dim: 3 }} shape {{ dim: 4 }} }} }}""",
    """type: "DummyData" top: "data" top: "label"
  dummy_data_param {{ shape {{ dim: 4 dim: 3 }} shape {{ dim: 4 }}
    data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" }} }} }}""",
)

CONVOLUTION = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
"""

SOLVER = """
net: "{net}" base_lr: 0.1 momentum: 0.5 lr_policy: "step" stepsize: 2 gamma: 0.1
max_iter: 5 snapshot_after_train: false snapshot_prefix: "{prefix}" random_seed: 3 {more}
"""


def write_net(folder: Path, text: str = TWO_LAYERS, more: str = "") -> str:
    """Write a net; returns its path."""
    path = folder / "net.prototxt"
    path.write_text(text.format(more=more) if "{more}" in text else text)
    return str(path)


def write_solver(folder: Path, more: str = "") -> str:
    """Write a solver for the net that feeds itself; returns its path."""
    path = folder / "solver.prototxt"
    net = write_net(folder, SELF_FED)
    path.write_text(SOLVER.format(net=net, prefix=folder / "snap", more=more))
    return str(path)
