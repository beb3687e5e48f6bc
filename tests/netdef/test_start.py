"""Building a net imports no compiler: that takes longer than anything else at the start."""

from __future__ import annotations

import subprocess
import sys

import pytest

BUILD = """
import sys
from cortado.netdef import Net
from cortado.tools.benchmarks.nets import definition
for phase in ("TRAIN", "TEST"):
    Net(definition(sys.argv[1], 1), phase)
print(*{"sympy", "torch._dynamo"}.intersection(sys.modules))
"""


@pytest.mark.parametrize("name", ["lenet", "bvlc_alexnet", "bvlc_googlenet", "resnet50_caffe"])
def test_common_nets_are_built_without_a_compiler(name: str) -> None:
    command = [sys.executable, "-c", BUILD, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
