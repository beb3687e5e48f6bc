"""The Python interface on a GPU: arrays are fetched, and written back before the next pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cortado.tools import pycaffe as caffe
from support.pycaffe_nets import TWO_LAYERS, write_net, write_solver

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu_mode() -> Iterator[None]:
    caffe.set_device(0)
    caffe.set_mode_gpu()
    yield
    caffe.set_mode_cpu()


def test_passes_agree_with_the_cpu(tmp_path: Path) -> None:
    path = write_net(tmp_path, TWO_LAYERS, "force_backward: true")
    net = caffe.Net(path, caffe.TRAIN)
    assert net.module.device.type == "cuda"
    results = []
    for set_mode in (caffe.set_mode_gpu, caffe.set_mode_cpu):
        set_mode()
        net.blobs["data"].data[...] = np.arange(12).reshape(4, 3) / 6
        net.blobs["label"].data[...] = [0, 1, 2, 0]
        net.clear_param_diffs()
        net.forward()
        net.backward()
        results.append(
            [net.blobs[name].data.copy() for name in net.blobs]
            + [net.blobs[name].diff.copy() for name in ("data", "ip1", "ip2")]
            + [blob.diff.copy() for blobs in net.params.values() for blob in blobs]
        )
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def test_what_is_written_on_the_host_reaches_the_device(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path), caffe.TRAIN)
    net.forward()
    net.blobs["ip1"].data[...] = 1
    net.params["ip2"][0].data[...] = 2
    net.params["ip2"][1].data[...] = 0
    assert (net.forward(start="ip2", end="ip2")["ip2"] == 10).all()
    net.blobs["ip2"].diff[...] = 1
    net.backward(start="ip2", end="ip2")
    assert (net.blobs["ip1"].diff == 6).all()


def test_a_solver_and_its_test_net(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path, "test_iter: 1 test_interval: 100"))
    solver.net.params["ip1"][0].data[...] = 0.5
    before = solver.test_nets[0].forward()["loss"].copy()
    solver.step(3)
    assert not (solver.net.params["ip1"][0].data == 0.5).all()
    assert solver.test_nets[0].forward()["loss"] != before
    solver.net.params["ip1"][0].diff[...] = 1
    weights = solver.net.params["ip1"][0].data.copy()
    solver.apply_update()
    assert (solver.net.params["ip1"][0].data < weights).any()
