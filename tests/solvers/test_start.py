"""Training imports neither torchvision nor torch's compiler, which comes with it.

They would take more than a second and 180 MB, more than most nets.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cortado.proto.text import to_text
from support.runs import solver_document

TRAIN = """
import sys
from cortado.tools.cli import main
code = main(["train", "--solver", sys.argv[1]])
print(code, *{"sympy", "torch._dynamo", "torchvision"}.intersection(sys.modules))
"""

NET = """
layer { name: "in" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 8 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" }
"""


def test_a_run_with_tests_and_snapshots_imports_no_compiler(tmp_path: Path) -> None:
    solver = tmp_path / "solver.prototxt"
    fields = "test_iter: 1 test_interval: 4 display: 4 snapshot: 4"
    document = solver_document(tmp_path, fields, NET)
    solver.write_text(to_text(document.message))
    command = [sys.executable, "-c", TRAIN, str(solver)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "run_iter_8.caffemodel").is_file()
