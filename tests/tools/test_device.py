"""Which device a command runs on."""

from __future__ import annotations

import pytest
import torch

from cortado.proto.caffe_pb2 import SolverParameter
from cortado.proto.errors import ConfigError, ResourceError
from cortado.proto.positions import Document
from cortado.solvers.solver import choose_device
from cortado.tools import device


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that the machine has so many GPUs."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def chosen(flag: str, fields: dict[str, int]) -> str:
    """The device that `cortado train` takes."""
    return str(choose_device(Document(SolverParameter(**fields)), device.for_training(flag)))


@pytest.mark.parametrize(
    ("flag", "fields", "expected"),
    [
        ("", {}, "cpu"),
        ("", {"solver_mode": SolverParameter.CPU}, "cpu"),
        ("", {"solver_mode": SolverParameter.GPU}, "cuda:0"),
        ("", {"solver_mode": SolverParameter.GPU, "device_id": 1}, "cuda:1"),
        ("1", {"solver_mode": SolverParameter.CPU}, "cuda:1"),
        ("0", {}, "cuda:0"),
    ],
)
def test_the_flag_wins_and_the_solver_must_say_gpu_in_so_many_words(flag, fields, expected, gpus):
    gpus(2)
    assert chosen(flag, fields) == expected


def test_ids(gpus):
    gpus(3)
    assert device.ids("all") == [0, 1, 2]
    assert device.ids("2, 0") == [2, 0]
    assert device.first("2,0") == "cuda:2"
    assert device.first("") == "cpu"


@pytest.mark.parametrize("flag", ["one", "-1", "0;1", ","])
def test_ids_that_are_no_numbers(flag, gpus):
    gpus(2)
    with pytest.raises(ConfigError, match="comma list of device ids or 'all'"):
        device.ids(flag)


def test_an_id_that_is_not_there(gpus):
    gpus(2)
    with pytest.raises(ResourceError, match="this machine has GPUs 0 to 1"):
        device.ids("2")


@pytest.mark.parametrize(("flag", "mode"), [("0", "CPU"), ("", "GPU")])
def test_no_gpu(flag, mode, gpus):
    gpus(0)
    with pytest.raises(ResourceError, match="this machine"):
        chosen(flag, {"solver_mode": SolverParameter.SolverMode.Value(mode)})


def test_training_on_several_gpus_is_refused(gpus):
    gpus(2)
    with pytest.raises(ConfigError, match=r"name one \(--gpu 1\).*--set iter_size=2 .*2 GPUs"):
        device.for_training("1,0")


@pytest.mark.gpu
def test_description_of_a_gpu():
    assert device.describe_gpu(0)["Name"] == torch.cuda.get_device_name(0)
