"""Running scripts that say ``import caffe``: the runner, the examples, Python layers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cortado
from cortado.tools import cli
from cortado.tools import pycaffe as caffe
from support.pycaffe_nets import write_net

EXAMPLES = Path(cortado.__file__).resolve().parent / "examples" / "pycaffe"
IMPORTS = """
import sys
import caffe, caffe.io, caffe.draw, caffe.coord_map, caffe.proto.caffe_pb2
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2
from caffe.io import Transformer
from caffe.pycaffe import Net
from caffe.net_spec import NetSpec
from caffe.layers import ReLU
import beside

assert caffe.Net is Net and caffe.NetSpec is NetSpec and caffe.io.Transformer is Transformer
assert caffe.proto.caffe_pb2 is caffe_pb2 and caffe_pb2.TRAIN == caffe.TRAIN == 0
assert ReLU(L.Input()).to_proto().layer[1].type == "ReLU"
assert caffe.__version__ == "1.0.0"
print(__name__, sys.argv, beside.VALUE)
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GLOG_minloglevel": "2", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "cortado.tools.pycaffe", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_script_finds_caffe_its_arguments_and_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "script.py").write_text(IMPORTS)
    (tmp_path / "scripts" / "beside.py").write_text("VALUE = 5")
    done = run("scripts/script.py", "--flag", "x", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "__main__ ['scripts/script.py', '--flag', 'x'] 5\n"


def test_a_module_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys, caffe\nsys.exit(len(sys.argv) + caffe.TEST)")
    assert run("-m", "program", "a", "b", folder=tmp_path).returncode == 4


@pytest.mark.parametrize("arguments", [[], ["-m"], ["none.py"]])
def test_nothing_to_run_is_said(tmp_path: Path, arguments: list[str]) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "usage: python -m cortado.tools.pycaffe" in done.stderr


def test_it_is_no_subcommand() -> None:
    assert "pycaffe" not in cli.subcommands()


def test_it_costs_nothing_when_it_is_not_imported() -> None:
    code = (
        "import sys, cortado, cortado.tools.cli; print([m for m in sys.modules if 'pycaffe' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- Python layers ---------------------------------------------------------------------------------

LAYERS = """
import caffe
import numpy as np

class Counter(caffe.Layer):
    def setup(self, bottom, top):
        self.step = int(self.param_str)
        self.batches = 0
        top[0].reshape(2, 3)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.batches += self.step
        top[0].data[...] = self.batches

    def backward(self, top, propagate_down, bottom):
        pass

class Gain(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 4

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff

class Broken(caffe.Layer):
    def setup(self, bottom, top):
        if self.param_str == "setup":
            raise KeyError("in setup")

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        raise ZeroDivisionError("in forward")
"""


def python_layer(name: str, bottom: str, top: str, layer: str, param: str = "") -> str:
    bottoms = f'bottom: "{bottom}"' if bottom else ""
    return (
        f'layer {{ name: "{name}" type: "Python" {bottoms} top: "{top}" '
        f'python_param {{ module: "layers_for_test" layer: "{layer}" param_str: "{param}" }} }}\n'
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "layers_for_test.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_layers_that_make_data_and_hold_parameters(folder: Path) -> None:
    text = python_layer("data", "", "x", "Counter", "2") + python_layer("gain", "x", "y", "Gain")
    net = caffe.Net(write_net(folder, "force_backward: true " + text), caffe.TRAIN)
    counter, gain = net.layers
    assert counter.batches == 0  # building and reshaping a net computes nothing
    net.reshape()
    assert counter.batches == 0
    net.forward()
    assert counter.batches == 2
    assert (net.blobs["y"].data == 8).all()
    assert net.blobs["y"].shape == (2, 3)
    gain.blobs[0].data[0] = 10
    assert net.params["gain"][0].data.tolist() == [10]
    assert (net.forward(start="gain")["y"] == 20).all()
    net.blobs["y"].diff[...] = 1
    net.backward()
    net.backward()
    assert net.params["gain"][0].diff.tolist() == [24]
    assert isinstance(counter, caffe.Layer)
    assert counter.type == "Python"


def test_errors_of_python_layers_come_through_as_they_are(folder: Path) -> None:
    data = 'layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 1 } } }\n'
    with pytest.raises(KeyError, match="in setup"):
        caffe.Net(write_net(folder, data + python_layer("b", "x", "y", "Broken", "setup")), 0)
    net = caffe.Net(write_net(folder, data + python_layer("b", "x", "y", "Broken")), 0)
    with pytest.raises(ZeroDivisionError, match="in forward"):
        net.forward()
    with pytest.raises(RuntimeError, match="no class 'Missing'"):
        caffe.Net(write_net(folder, data + python_layer("b", "x", "y", "Missing")), 0)


# -- examples --------------------------------------------------------------------------------------


def numbers(script: str, folder: Path) -> list[float]:
    """Run an example; returns the numbers with a decimal point that it prints."""
    done = run(str(EXAMPLES / script), folder=folder)
    assert done.returncode == 0, done.stderr
    return [float(each) for each in re.findall(r"-?\d+\.\d+(?:e-\d+)?", done.stdout)]


def test_example_classification(tmp_path: Path) -> None:
    found = numbers("classification.py", tmp_path)
    assert found[-2:] == [1.0, 1.0]


def test_example_learning_lenet(tmp_path: Path) -> None:
    before, *rest = numbers("learning_lenet.py", tmp_path)
    losses, accuracies = rest[0:6:2], rest[1:6:2]
    assert losses[-1] < before / 4
    assert accuracies[-1] > 0.93


def test_example_net_surgery(tmp_path: Path) -> None:
    first, by_hand, small, large, *silenced = numbers("net_surgery.py", tmp_path)
    assert first == pytest.approx(by_hand, abs=1e-5)
    assert max(small, large) < 1e-5
    assert silenced == [0.25] * 4


def test_example_logistic_regression(tmp_path: Path) -> None:
    linear, hidden = numbers("logistic_regression.py", tmp_path)
    assert linear < 0.75
    assert hidden > 0.95


def test_example_python_loss(tmp_path: Path) -> None:
    truth, squares, absolute = np.reshape(numbers("python_loss.py", tmp_path), (3, 2))
    assert np.abs(absolute - truth).max() < 0.06
    assert np.abs(squares - truth).max() > 0.5


def test_example_multilabel(tmp_path: Path) -> None:
    before, _, after = numbers("multilabel.py", tmp_path)
    assert before < 0.7
    assert after > 0.95


def test_example_fine_tuning(tmp_path: Path) -> None:
    known, tuned, scratch, moved = numbers("fine_tuning.py", tmp_path)
    assert known > 0.95
    assert tuned > scratch + 0.05
    assert moved == 0
