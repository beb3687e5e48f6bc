"""Layers of a user's own: from their block in prototxt to their gradients, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cortado
from cortado.layers import registry
from cortado.netdef import Net
from cortado.proto import caffe_pb2
from cortado.proto.errors import ConfigError
from cortado.proto.files import read_net
from cortado.proto.text import parse, to_text
from cortado.tools.cli import main
from support.toy_training import train

EXAMPLE = Path(cortado.__file__).parent / "examples" / "own_layer"
MODULE = """
from typing import Literal
import torch
from cortado import Filler, Layer, register

@register("Shift")
class Shift(Layer):
    def __init__(self, by: float = 1.0, times: int = 1, how: Literal["up", "down"] = "up",
                 steps: tuple[int, ...] = (), deep: bool = False, label: str | None = None,
                 filler: Filler | None = None) -> None:
        super().__init__()
        self.given = (by, times, how, steps, deep, label)
        self.filler = filler

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.given[0]
"""
NET = """
import: "shift_layers"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "shift" type: "Shift" bottom: "data" top: "shift" {block} }}
"""


@pytest.fixture(autouse=True)
def _own_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module ``shift_layers`` in the working directory; its types are gone afterwards."""
    (tmp_path / "shift_layers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    registry._load_all()
    before, modules = dict(registry._classes), set(sys.modules)
    yield
    registry._classes.clear()
    registry._classes.update(before)
    for name in set(sys.modules) - modules:
        if name.endswith("_layers"):
            del sys.modules[name]


def net(block: str) -> Net:
    return Net(parse(NET.format(block=block), caffe_pb2.NetParameter, "net.prototxt"))


def test_the_example_learns_and_keeps_its_parameters_in_a_snapshot(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = Net(EXAMPLE / "net.prototxt")
    x = torch.linspace(-1, 1, 64).reshape(64, 1)
    losses = train(own, lambda: {"data": x, "target": torch.sin(6 * x)}, 300, 0.01)
    assert losses[-1] < 0.01 < 0.1 < losses[0]
    own.save(tmp_path / "own.caffemodel")
    again = Net(EXAMPLE / "net.prototxt", weights=tmp_path / "own.caffemodel")
    torch.testing.assert_close(again.layer("mixture").layer.gate, own.layer("mixture").layer.gate)


@pytest.mark.parametrize("name", ["Mish2", "Mixture", "LogCoshLoss"])
def test_the_examples_gradients(name: str) -> None:
    own = Net(EXAMPLE / "net.prototxt")
    step = next(step for step in own.steps if step.type == name)
    layer = step.layer.double()
    inputs = [torch.rand(shape).double().requires_grad_() for shape in step.bottom_shapes]
    assert torch.autograd.gradcheck(layer, inputs, fast_mode=True)


def test_fields_become_typed_arguments() -> None:
    block = (
        'shift_param { by: 2 times: 3 how: "down" steps: [4, 5] steps: 6 deep: true label: "a"'
        ' filler { type: "uniform" max: 0.5 } }'
    )
    layer = net(block).layer("shift").layer
    assert layer.given == (2.0, 3, "down", (4, 5, 6), True, "a")
    assert isinstance(layer.given[0], float)
    blob = torch.full((50,), -1.0)
    layer.filler(blob)
    assert 0 <= blob.min() <= blob.max() < 0.5


def test_defaults_hold_without_a_block() -> None:
    assert net("").layer("shift").layer.given == (1.0, 1, "up", (), False, None)


def test_blocks_survive_text_and_binary() -> None:
    block = (
        'shift_param { by: -1.5e-3 times: -7 how: down label: "a\\"b\\n" deep: true'
        ' filler { type: "xavier" } steps: [1, 2] }'
    )
    message = parse(NET.format(block=block), caffe_pb2.NetParameter).message
    binary = caffe_pb2.NetParameter.FromString(message.SerializeToString())
    text = to_text(message)
    assert parse(text, caffe_pb2.NetParameter).message == binary == message
    assert "  shift_param {\n    by: -0.0015\n    times: -7\n" in text
    assert "own_param" not in text


@pytest.mark.parametrize(
    ("block", "place", "words"),
    [
        ("shift_param { bye: 2 }", "4:", "Shift has no field 'bye'; did you mean 'by'?"),
        ("shift_param { by: up }", "4:", "'by' must be a number, got up"),
        ("shift_param { times: 1.5 }", "4:", "'times' must be a whole number, got 1.5"),
        ("shift_param { deep: 3 }", "4:", "'deep' must be true or false, got 3"),
        ("shift_param { label: a }", "4:", "'label' must be a string, got a"),
        ("shift_param { how: dwn }", "4:", "must be one of up, down, got dwn; did you mean 'down'"),
        ("shift_param { by: 1 by: 2 }", "4:", "'by' may be given only once"),
        ("shift_param { filler { typ: 1 } }", "4:", "did you mean 'type'"),
        ("shift_param { filler: 1 }", "4:", "must be a block"),
        ("shif_param { by: 1 }", "4:", "LayerParameter has no field 'shif_param'"),
        ("shift_param: 1", "4:", "must be a block"),
    ],
)
def test_refused_at_its_line(block: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        net(block)
    assert words in str(caught.value)
    assert f"net.prototxt:{place}" in str(caught.value)


def test_a_misspelt_block_of_a_layer_of_ours_is_refused() -> None:
    text = (
        NET.format(block="")
        .replace('"Shift"', '"TanH"')
        .replace('top: "shift"', 'top: "shift" tan_h_param {}')
    )
    with pytest.raises(ConfigError, match="did you mean 'tanh_param'"):
        Net(parse(text, caffe_pb2.NetParameter))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("no_such_layers", "cannot import the module 'no_such_layers': ModuleNotFoundError"),
        ("broken_layers", "cannot import the module 'broken_layers': NameError"),
        ("taken_layers", "layer type 'ReLU' is already registered by cortado.layers.activations"),
        ("foreign_layers", "must be a subclass of cortado.Layer"),
    ],
)
def test_modules_that_cannot_be_imported(module: str, words: str) -> None:
    start = "from cortado import Layer, register\n"
    Path("broken_layers.py").write_text("nonsense\n")
    Path("taken_layers.py").write_text(f'{start}@register("ReLU")\nclass Mine(Layer): ...\n')
    Path("foreign_layers.py").write_text(f'{start}@register("Mine")\nclass Mine: ...\n')
    text = NET.format(block="").replace("shift_layers", module)
    with pytest.raises(ConfigError) as caught:
        Net(parse(text, caffe_pb2.NetParameter, "net.prototxt"))
    assert words in str(caught.value)
    assert "net.prototxt:2:" in str(caught.value)


def test_found_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(NET.format(block="").replace('import: "shift_layers"', ""))
    assert main(["check", "net.prototxt"]) != 0
    assert "unknown layer type 'Shift'" in "".join(capsys.readouterr())
    assert main(["check", "net.prototxt", "--import", "shift_layers"]) == 0


def test_found_by_the_solver() -> None:
    Path("net.prototxt").write_text(NET.format(block="").replace('import: "shift_layers"', ""))
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" import: "shift_layers" base_lr: 0.1 lr_policy: "fixed" max_iter: 1'
    )
    assert cortado.Solver("solver.prototxt").net.layer("shift").type == "Shift"


def test_found_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package's type is imported when a net uses it, and not before."""
    folder = tmp_path / "site"
    (folder / "shifts-1.dist-info").mkdir(parents=True)
    (folder / "shifts-1.dist-info" / "METADATA").write_text("Name: shifts\nVersion: 1\n")
    (folder / "shifts-1.dist-info" / "entry_points.txt").write_text(
        "[cortado.layers]\nShift = shift_layers\nOther = no_such_layers\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(tmp_path)
    registry._offered.cache_clear()
    assert "shift_layers" not in sys.modules
    text = NET.format(block="").replace('import: "shift_layers"', "")
    assert Net(parse(text, caffe_pb2.NetParameter)).layer("shift").type == "Shift"
    with pytest.raises(ConfigError, match="offers layer type 'Other', but cannot be imported"):
        Net(parse(text.replace("Shift", "Other"), caffe_pb2.NetParameter))
    with pytest.raises(ConfigError, match="unknown layer type 'Oter'; did you mean 'Other'"):
        Net(parse(text.replace("Shift", "Oter"), caffe_pb2.NetParameter))
    registry._offered.cache_clear()


def test_the_short_form_writes_own_blocks_too() -> None:
    text = "with { by: 3 }\n" + NET.format(block="shift_param { by: $by }")
    try:
        document = parse(text, caffe_pb2.NetParameter)
    except ConfigError:
        pytest.fail("variables must work in own blocks")
    assert Net(document).layer("shift").layer.given[0] == 3.0


def test_the_example_is_read_from_its_folder() -> None:
    assert getattr(read_net(EXAMPLE / "net.prototxt").message, "import") == ["my_layers"]
