"""The example nets: they build, and the files that belong together agree."""

from __future__ import annotations

from pathlib import Path

import pytest

import cortado
from cortado.netdef import blueprint
from cortado.proto.files import read_net, read_solver

EXAMPLES = Path(cortado.__file__).parent / "examples"
NETS = sorted(path for path in EXAMPLES.rglob("*.prototxt") if "solver" not in path.name)
DEPLOY = {
    "digits/deploy.prototxt": "digits/train_val.prototxt",
    "mnist/lenet.prototxt": "mnist/lenet_train_test.prototxt",
    "cifar10/cifar10_quick.prototxt": "cifar10/cifar10_quick_train_test.prototxt",
    "cifar10/cifar10_full.prototxt": "cifar10/cifar10_full_train_test.prototxt",
}
SHAPES = {
    "digits": (1, 8, 8),
    "fine_tuning": (1, 16, 16),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}


def with_inputs(path: Path, shape: tuple[int, int, int]):
    """The net of ``path`` with Input layers where its databases would be."""
    net = read_net(path).message
    for layer in net.layer:
        if layer.type == "Data":
            batch = layer.data_param.batch_size
            layer.type = "Input"
            layer.input_param.shape.add().dim.extend((batch, *shape))
            layer.input_param.shape.add().dim.append(batch)
            layer.ClearField("data_param")
            layer.ClearField("transform_param")
    return net


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.name)
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_nets_build(path, phase):
    shape = SHAPES.get(path.parent.name)
    plan = blueprint.draw(with_inputs(path, shape) if shape else path, phase)
    assert plan.blob_shapes[plan.outputs[-1]] in ((), (plan.blob_shapes["data"][0], 10))


@pytest.mark.parametrize("deploy", sorted(DEPLOY))
def test_deploy_nets_take_the_trained_weights(deploy):
    shape = SHAPES[Path(deploy).parent.name]
    trained, used = (
        {param.name: param.tensor.shape for param in blueprint.draw(net, "TEST").params}
        for net in (with_inputs(EXAMPLES / DEPLOY[deploy], shape), EXAMPLES / deploy)
    )
    assert trained == used


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("*solver*.prototxt")), ids=lambda path: path.name
)
def test_solvers_name_nets_beside_them(path):
    solver = read_solver(path).message
    assert (path.parent / solver.net).is_file()
    assert solver.HasField("solver_mode")
