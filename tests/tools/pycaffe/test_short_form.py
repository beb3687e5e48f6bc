"""Nets written in Python that use blocks: the short text, and the plain net it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.proto import caffe_pb2
from cortado.proto.text import parse
from cortado.tools import pycaffe as caffe
from cortado.tools.pycaffe import Verbatim, required
from cortado.tools.pycaffe import layers as L
from cortado.tools.pycaffe import params as P

BLOCKS = """
block { name: "fork" bottom: "x" bottom: "y" top: "sum" top: "act"
  with { num_output: required pool: MAX }
  layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
    convolution_param { num_output: $num_output } }
  layer { name: "pool" type: "Pooling" bottom: $last top: $last pooling_param { pool: $pool } }
  layer { name: "sum" type: "Eltwise" bottom: $last bottom: "y" top: "sum" }
  layer { name: "act" type: "ReLU" bottom: "sum" top: "act" } }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fork.prototxt").write_text(BLOCKS)
    return tmp_path


def plain(n: caffe.NetSpec, folder: Path | None = None) -> caffe_pb2.NetParameter:
    """The net, which must be the same by way of its text."""
    message = n.to_proto()
    found = parse(n.to_text(), caffe_pb2.NetParameter, folder=folder).message
    assert found == message
    return message


def wires(message: caffe_pb2.NetParameter) -> list[str]:
    return [
        f"{each.name}: {' '.join(each.bottom)} > {' '.join(each.top)}" for each in message.layer
    ]


def test_a_block_is_used_like_a_layer(folder: Path) -> None:
    n = caffe.NetSpec(include="fork.prototxt", folder=folder)
    n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
    n.a, n.b = L.Block("fork", n.data, n.data, num_output=np.int64(4), pool="AVE", ntop=2)
    n.c = L.Block("fork", n.b, n.a, num_output=2, include={"phase": caffe.TRAIN})
    n.d = L.ReLU(n.c, in_place=True)
    message = plain(n, folder)
    assert wires(message) == [
        "data:  > data",
        "a/conv: data > a/conv",
        "a/pool: a/conv > a/conv",
        "a/sum: a/conv data > a",
        "a/act: a > b",
        "c/conv: b > c/conv",
        "c/pool: c/conv > c/conv",
        "c/sum: c/conv a > c",
        "c/act: c > c/act",
        "d: c > c",
    ]
    assert message.layer[2].pooling_param.pool == P.Pooling.AVE
    assert message.layer[1].convolution_param.num_output == 4
    assert message.layer[5].include[0].phase == caffe.TRAIN
    lines = n.to_text().splitlines()
    assert lines[0] == 'include: "fork.prototxt"'
    assert "  with { num_output: 4 pool: AVE }" in lines


def test_library_blocks_keep_published_names() -> None:
    """Blocks without declared tops, of which one works in place."""
    n = caffe.NetSpec(include=["classic.prototxt"])
    n.data = L.Input(shape={"dim": [1, 3, 32, 32]})
    n.first = L.Block("conv_relu", n.data, name="", id=1, num_output=8)
    n.side = L.Pooling(n.data, pool=P.Pooling.AVE, kernel_size=2)
    n.second = L.Block("pool", n.first, name="", id="1", method="AVE")
    n.fc6 = L.Block("fc", n.second, name="", id=6, num_output=5, filler={"type": "msra"})
    n.drop = L.Block("relu_drop", n.fc6, name="", id=6)
    n.prob = L.Softmax(n.drop)
    message = plain(n)
    assert wires(message) == [
        "data:  > data",
        "conv1: data > conv1",
        "relu1: conv1 > conv1",
        "side: data > side",
        "pool1: conv1 > pool1",
        "fc6: pool1 > fc6",
        "relu6: fc6 > fc6",
        "drop6: fc6 > fc6",
        "prob: fc6 > prob",
    ]
    assert message.layer[5].inner_product_param.weight_filler.type == "msra"


def test_variables_and_literal_dollars() -> None:
    n = caffe.NetSpec(variables={"width": 8, "shape": [2, 3], "rule": {"lr_mult": 2.5}})
    n.data = L.Input(shape={"dim": Verbatim("$shape")})
    n.ip = L.InnerProduct(
        n.data,
        num_output=Verbatim("${width // 2}"),
        bias_term=False,
        weight_filler={"type": "xavier"},
        param=Verbatim("$rule"),
    )
    n.out = L.Python(n.ip, module="a$b", param_str='"$width"\n', name="o$")
    message = plain(n)
    ip = message.layer[1]
    assert list(message.layer[0].input_param.shape[0].dim) == [2, 3]
    assert (ip.inner_product_param.num_output, ip.inner_product_param.bias_term) == (4, False)
    assert (ip.inner_product_param.weight_filler.type, ip.param[0].lr_mult) == ("xavier", 2.5)
    own = message.layer[2].python_param
    assert (message.layer[2].name, own.module, own.param_str) == ("o$", "a$b", '"$width"\n')
    changed = parse(n.to_text(), caffe_pb2.NetParameter, variables={"width": 20}).message
    assert changed.layer[1].inner_product_param.num_output == 10


def test_a_plain_net_stays_plain() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2]}, name="$data")
    assert plain(n).layer[0].name == "$data"
    n.pool = L.Pooling(n.data, pool=Verbatim("AVE"))
    message = plain(n)
    assert message.layer[0].name == "$data"
    assert message.layer[1].pooling_param.pool == P.Pooling.AVE


def residual() -> caffe.BlockSpec:
    b = caffe.BlockSpec("residual", bottom="x", top="sum", num_output=required, kernel=3)
    b.conv = L.Convolution(b.x, num_output=Verbatim("$num_output"), kernel_size=Verbatim("$kernel"))
    b.relu = L.ReLU(b.conv, in_place=True)
    b.sum = L.Eltwise(b.x, b.relu)
    return b


Unit = tuple[int, int, bool]  # outputs, kernel, whether it reads the data instead of the last


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5), st.booleans()), max_size=6))
def test_blocks_from_python_stand_for_their_layers(units: list[Unit]) -> None:
    outer = caffe.BlockSpec("pair", bottom="y", kernel=required)
    outer.one = L.Block("residual", outer.y, num_output=7, kernel=Verbatim("$kernel"))
    outer.two = L.Block("residual", outer.one, num_output=7)
    short = caffe.NetSpec(blocks=[residual(), outer])
    long = caffe.NetSpec()
    for n in (short, long):
        n.data = L.Input(shape={"dim": [1, 7, 9, 9]})
    last: dict[Any, Any] = {short: short.data, long: long.data}

    def write_out(name: str, x: Any, num_output: int, kernel: int, top: str) -> Any:
        conv = L.Convolution(x, num_output=num_output, kernel_size=kernel)
        long[f"{name}/conv"] = conv
        long[f"{name}/relu"] = L.ReLU(conv, in_place=True)
        long[top] = L.Eltwise(x, long[f"{name}/relu"], name=f"{name}/sum")
        return long[top]

    for index, (number, kernel, restart) in enumerate(units):
        if restart:
            last = {short: short.data, long: long.data}
        name = f"unit{index}"
        if number == 7:
            last[short] = short[name] = L.Block("pair", last[short], kernel=kernel)
            x = write_out(f"{name}/one", last[long], 7, kernel, f"{name}/one")
            last[long] = write_out(f"{name}/two", x, 7, 3, f"{name}/two")
        else:
            last[short] = L.Block("residual", last[short], num_output=number, kernel=kernel)
            short[name] = last[short]
            last[long] = write_out(name, last[long], number, kernel, name)
    assert plain(short) == long.to_proto()


def test_mistakes_are_told_with_their_reason(folder: Path) -> None:
    n = caffe.NetSpec(include="fork.prototxt", folder=folder)
    n.data = L.Input()
    n.a = L.Block("frok", n.data)
    with pytest.raises(RuntimeError, match=r"there is no block 'frok'.*'fork'"):
        n.to_text()
    n.a = L.Block("fork", n.data)
    with pytest.raises(TypeError, match="block 'fork' takes 2 bottoms, got 1"):
        n.to_proto()
    n.a = L.Block("fork", n.data, n.data, outputs=3)
    with pytest.raises(RuntimeError, match="has no parameter 'outputs'"):
        n.to_proto()
    n.a = L.Block("fork", n.data, n.data, num_output=object())
    with pytest.raises(TypeError, match="prototxt has no value for a object"):
        n.to_text()
    with pytest.raises(RuntimeError, match=r"no file 'none.prototxt' to include"):
        caffe.NetSpec(include="none.prototxt").to_proto()


def test_nets_and_solvers_take_variables(tmp_path: Path) -> None:
    n = caffe.NetSpec(variables={"width": 3})
    n.data = L.DummyData(shape={"dim": [2, 4]})
    n.ip = L.InnerProduct(n.data, num_output=Verbatim("$width"))
    n.loss = L.Reduction(n.ip, loss_weight=1)
    net = tmp_path / "net.prototxt"
    net.write_text(n.to_text())
    assert caffe.Net(str(net), caffe.TEST, variables={"width": 5}).blobs["ip"].shape == (2, 5)
    file = tmp_path / "solver.prototxt"
    file.write_text(f'with {{ rate: 0.1 }} net: "{net}" base_lr: $rate lr_policy: "fixed"')
    solver = caffe.get_solver(str(file), variables={"width": 6, "rate": 0.5})
    assert solver.net.blobs["ip"].shape == (2, 6)
    assert solver.lr == 0.5
    with pytest.raises(RuntimeError, match="'widht'"):
        caffe.Net(str(net), caffe.TEST, variables={"widht": 5})
